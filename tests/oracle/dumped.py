"""Lines of `tidegate buffer dump`, seen as records that a Kafka client has read."""

import base64
import json


class Dumped:
    """One line. Its offset is its number in its run."""

    def __init__(self, line: str):
        self.fields = json.loads(line)

    def topic(self) -> str:
        return self.fields["topic"]

    def partition(self) -> int:
        return self.fields["partition"]

    def offset(self) -> int:
        return self.fields["seq"]

    def key(self) -> bytes | None:
        return self._bytes(self.fields, "key")

    def value(self) -> bytes | None:
        return self._bytes(self.fields, "value")

    def headers(self) -> list[tuple[str, bytes | None]]:
        return [(each["name"], self._bytes(each, "value")) for each in self.fields["headers"]]

    @staticmethod
    def _bytes(fields: dict, name: str) -> bytes | None:
        if f"{name}_base64" in fields:
            return base64.b64decode(fields[f"{name}_base64"])
        text = fields.get(name)
        return None if text is None else text.encode()


def read(path: str):
    """The records in the order of the file."""
    with open(path, encoding="utf-8") as file:
        yield from map(Dumped, file)
