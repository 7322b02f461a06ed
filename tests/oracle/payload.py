"""What devices say: payloads that anyone can make again from client, counter and attempt.

So the check compares every byte without anybody keeping the bytes. Two kinds:

padded  b"CLIENT COUNTER ATTEMPT " and noise that nothing can compress, up to the wanted size
json    112 bytes of JSON as a sensor sends it: a random id, the three numbers, values that drift
"""

import argparse
import json
import math
from hashlib import blake2b, shake_128

JSON_BYTES = 112
COUNTER_BASE = 1_000_000  # keeps counters, and so the JSON, at one width
CLOCK_MS = 1_767_225_600_000


def make(kind: str, size: int, client: str, counter: int, attempt: int) -> bytes:
    """One payload; `size` is for the padded kind, and a least size: the numbers always fit."""
    if kind == "json":
        return _json(client, counter, attempt)
    head = f"{client} {counter} {attempt} ".encode()
    return head + shake_128(head).digest(max(0, size - len(head)))


def parse(value: bytes | None) -> tuple[str, int, int] | None:
    """Client, counter and attempt; None when these are not our bytes."""
    try:
        if value is None:
            return None
        if value.startswith(b"{"):
            fields = json.loads(value)
            return fields["dev"], fields["n"] - COUNTER_BASE, fields["try"]
        client, counter, attempt, _ = value.split(b" ", 3)
        return client.decode(), int(counter), int(attempt)
    except (ValueError, KeyError, TypeError):
        return None


def _json(client: str, counter: int, attempt: int) -> bytes:
    noise = blake2b(f"{client} {counter}".encode(), digest_size=11).digest()
    phase = sum(client.encode())
    drift = math.sin(counter / 400 + phase)
    temperature = 20 + 6 * drift + noise[8] / 512
    humidity = 50 - 15 * drift + noise[9] / 64
    pressure = 1013 + 4 * math.cos(counter / 900 + phase) + noise[10] / 400
    text = (
        f'{{"id":"{noise[:8].hex()}","dev":"{client}","n":{COUNTER_BASE + counter},"try":{attempt},'
        f'"ts":{CLOCK_MS + counter * 1000},"t":{temperature:.2f},"rh":{humidity:.2f},"p":{pressure:.1f}}}'
    )
    return text.encode().ljust(JSON_BYTES)


def arguments(commands) -> None:
    parser = commands.add_parser("sample", help="prints payloads, one a line")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--count", type=int, default=10_000)
    parser.set_defaults(run=_sample)


def _sample(options: argparse.Namespace) -> int:
    for number in range(options.count):
        client, counter = number % options.clients, number // options.clients
        print(_json(f"it-{client}", counter, 0).decode())
    return 0
