"""Records and a ledger with known faults, straight into Kafka, so that `check` is itself checked."""

import argparse
import random

from confluent_kafka import Producer

import check
import ledger
import payload


def run(options: argparse.Namespace) -> int:
    clients = [
        ledger.Client(f"plant-{i}", i, 1, "padded", 80, "plant", 10, 20, 1) for i in range(10)
    ]
    sent = []
    for counter in range(options.messages // len(clients)):
        for client in clients:
            client.sent.append(1)
            client.acked.append(1)
            value = payload.make(client.kind, client.size, client.id, counter, 0)
            sent.append((client, counter, value))
    sent = _spoil(sent, options, random.Random(options.seed))
    producer = Producer({"bootstrap.servers": options.bootstrap, "linger.ms": 20})
    for client, counter, value in sent:
        key = client.topic(counter).encode()
        partition = check.murmur2(key) % options.partitions
        producer.produce(
            options.topic, value, key, partition=partition, headers=_headers(client, counter)
        )
        producer.poll(0)
    producer.flush(60)
    ledger.write(options.ledger, clients)
    return 0


def _headers(client: ledger.Client, counter: int) -> dict[str, bytes]:
    return {
        "mqtt.message.id": str(counter % 65535 + 1).encode(),
        "mqtt.qos": b"1",
        "mqtt.retained": b"false",
        "mqtt.duplicate": b"false",
        "mqtt.client.id": client.id.encode(),
    }


def _spoil(sent: list, options: argparse.Namespace, rng: random.Random) -> list:
    """Loses, repeats, swaps, alters and invents, each at places that no other fault has."""
    stride = 40  # one client's next message of the same topic is 20 places behind
    places = rng.sample(range(stride, len(sent) - stride, stride), options.faults * 5)
    lost, repeated, swapped, altered, strange = (
        places[kind * options.faults : (kind + 1) * options.faults] for kind in range(5)
    )
    for at in swapped:
        sent[at], sent[at + 20] = sent[at + 20], sent[at]
    for at in altered:
        client, counter, value = sent[at]
        sent[at] = (client, counter, value[:-1] + bytes([value[-1] ^ 1]))
    result = []
    for at, (client, counter, value) in enumerate(sent):
        if at in lost:
            continue
        result.append((client, counter, value))
        if at in repeated:
            result.append((client, counter, value))
        if at in strange:
            made_up = payload.make(client.kind, client.size, client.id, counter, 7)
            result.append((client, counter, made_up))
    return result


def arguments(commands) -> None:
    parser = commands.add_parser("plant", help="known faults into Kafka", description=__doc__)
    add = parser.add_argument
    add("--bootstrap", required=True)
    add("--ledger", required=True)
    add("--topic", required=True)
    add("--partitions", type=int, required=True, help="that the topic has")
    add("--messages", type=int, default=10_000)
    add("--faults", type=int, default=10, help="of each kind: lost, repeated, swapped, altered, strange")
    add("--seed", type=int, default=1)
    parser.set_defaults(run=run)
