"""The ledger: what the senders know, kept outside the gateway.

A file of JSON lines, one a client: how often each message was sent, and whether it was acknowledged
(PUBACK, or PUBCOMP at QoS 2). The line also says how payloads and topics are made, so that the
check can make them again.
"""

import json
from dataclasses import asdict, dataclass, field


@dataclass
class Client:
    """One sender. `sent[n]` and `acked[n]` belong to its message number n."""

    id: str
    index: int
    qos: int
    kind: str
    size: int
    prefix: str
    clients: int
    topics: int
    groups: int
    sent: list[int] = field(default_factory=list)
    acked: list[int] = field(default_factory=list)
    refused: int = 0

    def topic(self, counter: int) -> str:
        """The MQTT topic of a message. Topics are dealt out to the clients; where there are more
        clients than topics, clients share them."""
        own = max(1, self.topics // self.clients)
        index = (self.index * own + counter % own) % self.topics
        return f"{self.prefix}/g{index % self.groups}/t{index}"


def write(path: str, clients: list[Client]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for client in clients:
            file.write(json.dumps(asdict(client)) + "\n")


def read(paths: list[str]) -> dict[str, Client]:
    clients = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for line in file:
                client = Client(**json.loads(line))
                clients[client.id] = client
    return clients


def only(clients: dict[str, Client], path: str) -> None:
    """Takes for acknowledged what a file of `load --acks` has: the beginning of one is what was
    acknowledged up to then."""
    for client in clients.values():
        client.acked = [0] * len(client.acked)
    with open(path, encoding="utf-8") as file:
        for line in file:
            name, counter = line.split()
            clients[name].acked[int(counter)] = 1
