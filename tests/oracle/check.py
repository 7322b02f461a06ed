"""Reads Kafka to its end and compares it with the ledger of the senders. Five numbers:

missing       acknowledged, and not in Kafka
unknown       in Kafka, and never sent
altered       other bytes than were sent; with --headers other headers than MQTT's fields; with
              --partitions-like-java another key than the MQTT topic, or on another partition than
              Java's partitioner takes for it
out of order  first occurrences of a client's messages of one MQTT topic that come too late
twice         records beyond the number of transmissions (each has its attempt in the payload), at
              QoS 2 beyond one

What the gateway's own loss ledger explains is subtracted from `missing` and printed. Of the MQTT
topics that --recreated matches, the Kafka topic was deleted on the way: what comes before the first
record that a client has there now went with it, and is printed as `gone`, not as missing. Exits
with 0 when all five are 0.
"""

import argparse
import json
import re
import sys
import time
import urllib.request
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition

import dumped
import ledger
import payload

# Reasons for which the gateway may fail to deliver what it has acknowledged; all are in its ledger.
EXPLAINING = re.compile(
    r"^tidegate_(?:(?:dropped|lost)_total"
    r'\{reason="(?:expired|full|by_hand|refused|damaged|kafka)"\}'
    r"|quarantined_total) (\d+)"
)
FIXED_HEADERS = ("mqtt.qos", "mqtt.retained", "mqtt.client.id")


@dataclass
class Verdict:
    """What was counted. `repeats` are records of messages that were in Kafka already, the sender's
    own repeats among them; `ledger` is what the gateway says it dropped, `explained` how
    much of that was found missing; `gone` went with a deleted topic; `missing` is without both."""

    missing: int = 0
    unknown: int = 0
    altered: int = 0
    out_of_order: int = 0
    twice: int = 0
    explained: int = 0
    gone: int = 0
    sent: int = 0
    acknowledged: int = 0
    transmissions: int = 0
    records: int = 0
    repeats: int = 0
    ledger: int = 0


def murmur2(data: bytes) -> int:
    """Java's org.apache.kafka.common.utils.Utils.murmur2, made positive as its partitioner does."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


class Judge:
    """Takes records partition by partition in order, and counts."""

    def __init__(
        self,
        clients: dict[str, ledger.Client],
        headers: bool,
        partitions: dict[str, int],
        recreated: str | None,
    ):
        self.clients = clients
        self.headers = headers
        self.recreated = recreated and re.compile(recreated)
        self.partitions = partitions  # Kafka topic → its number of partitions; empty: not judged
        self.verdict = Verdict()
        self.seen: dict[tuple[str, int], set[int]] = {}
        self.newest: dict[tuple[str, str], int] = {}
        self.first: dict[tuple[str, str], int] = {}
        self.hashes: dict[bytes, int] = {}
        self.examples: list[str] = []

    def take(self, record) -> None:
        verdict, value = self.verdict, record.value()
        verdict.records += 1
        named = payload.parse(value)
        client = self.clients.get(named[0]) if named else None
        if client is None or not self._was_sent(client, *named[1:]):
            verdict.unknown += 1
            self._example("unknown", record)
            return
        _, counter, attempt = named
        topic = client.topic(counter)
        if (
            value != payload.make(client.kind, client.size, client.id, counter, attempt)
            or (self.headers and not self._headers_right(record, client))
            or (self.partitions and not self._key_right(record, topic))
        ):
            verdict.altered += 1
            self._example("altered", record)
        attempts = self.seen.setdefault((client.id, counter), set())
        if attempt in attempts or (client.qos == 2 and attempts):
            verdict.twice += 1
            self._example("twice", record)
        if attempts:
            verdict.repeats += 1
        elif counter < self.newest.get((client.id, topic), -1):
            verdict.out_of_order += 1
            self._example("out of order", record)
        else:
            self.newest[client.id, topic] = counter
            self.first.setdefault((client.id, topic), counter)
        attempts.add(attempt)

    @staticmethod
    def _was_sent(client: ledger.Client, counter: int, attempt: int) -> bool:
        return 0 <= counter < len(client.sent) and 0 <= attempt < client.sent[counter]

    @staticmethod
    def _headers_right(record, client: ledger.Client) -> bool:
        got = dict(record.headers() or [])
        wanted = (str(client.qos).encode(), b"false", client.id.encode())
        return (
            tuple(got.get(name) for name in FIXED_HEADERS) == wanted
            and got.get("mqtt.duplicate") in (b"true", b"false")
            and (got.get("mqtt.message.id") or b"").isdigit()
        )

    def _key_right(self, record, topic: str) -> bool:
        key = record.key()
        if key != topic.encode():
            return False
        if key not in self.hashes:
            self.hashes[key] = murmur2(key)
        return record.partition() == self.hashes[key] % self.partitions[record.topic()]

    def _example(self, what: str, record) -> None:
        if len(self.examples) < 20:
            place = f"{record.topic()}-{record.partition()}@{record.offset()}"
            self.examples.append(f"{what}: {place} {(record.value() or b'')[:60]!r}")

    def _went_with_its_topic(self, client: ledger.Client, topic: str, counter: int) -> bool:
        if not self.recreated or not self.recreated.fullmatch(topic):
            return False
        return counter < self.first.get((client.id, topic), 0)

    def finish(self, explained: int) -> Verdict:
        verdict = self.verdict
        for client in self.clients.values():
            verdict.sent += len(client.sent)
            verdict.acknowledged += sum(client.acked)
            verdict.transmissions += sum(client.sent)
            for counter, acked in enumerate(client.acked):
                if acked and (client.id, counter) not in self.seen:
                    topic = client.topic(counter)
                    if self._went_with_its_topic(client, topic, counter):
                        verdict.gone += 1
                        continue
                    verdict.missing += 1
                    if len(self.examples) < 20:
                        self.examples.append(f"missing: {client.id} {counter} {topic}")
        verdict.explained = min(explained, verdict.missing)
        verdict.ledger = explained
        verdict.missing -= verdict.explained
        return verdict


def records(bootstrap: str, topics: list[str] | None, pattern: str | None, seconds: float):
    """Every record from the beginning to the end as it is now; first the partition counts."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "oracle",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": 65536,
            "isolation.level": "read_uncommitted",
            "check.crcs": True,
        }
    )
    known = consumer.list_topics(timeout=30).topics
    names = [name for name in known if not name.startswith("__")]
    if pattern:
        names = [name for name in names if re.fullmatch(pattern, name)]
    elif topics:
        names = topics
    absent = [name for name in names if name not in known]
    if absent:
        sys.exit(f"no such topic in Kafka: {', '.join(absent)}")
    yield {name: len(known[name].partitions) for name in names}
    left = {}
    for name in names:
        for number in known[name].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(name, number), timeout=30)
            if high > low:
                left[name, number] = (low, high)
    consumer.assign([TopicPartition(*key, low) for key, (low, _) in left.items()])
    end = time.monotonic() + seconds
    while left:
        if time.monotonic() > end:
            sys.exit(f"not read to the end within {seconds} s: {left}")
        for record in consumer.consume(2000, timeout=1):
            if record.error():
                sys.exit(f"Kafka: {record.error()}")
            key = record.topic(), record.partition()
            if key in left:
                if record.offset() < left[key][1]:
                    yield record
                if record.offset() + 1 >= left[key][1]:
                    del left[key]
    consumer.close()


def explained_by(urls: list[str], numbers: list[int]) -> int:
    """What the gateway says that it dropped, by its metrics, and what the caller adds."""
    total = sum(numbers)
    for url in urls:
        with urllib.request.urlopen(url, timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if found := EXPLAINING.match(line):
                    total += int(found[1])
    return total


def run(options: argparse.Namespace) -> int:
    if options.records:
        source, partitions = dumped.read(options.records), {}
    else:
        source = records(options.bootstrap, options.topic, options.pattern, options.deadline)
        partitions = next(source)
    clients = ledger.read(options.ledger)
    if options.acked:
        ledger.only(clients, options.acked)
    judge = Judge(
        clients,
        options.headers,
        partitions if options.partitions_like_java else {},
        options.recreated,
    )
    if options.by_time:
        # Python's sort keeps the order within a partition.
        source = sorted(source, key=lambda record: record.timestamp()[1])
    for record in source:
        judge.take(record)
    verdict = judge.finish(explained_by(options.metrics, options.explained))
    print_verdict(verdict, judge.examples, options.as_json)
    five = (verdict.missing, verdict.unknown, verdict.altered, verdict.out_of_order, verdict.twice)
    return 1 if any(five) else 0


def print_verdict(verdict: Verdict, examples: list[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({**vars(verdict), "examples": examples}))
        return
    print(
        f"sent {verdict.sent} · acknowledged {verdict.acknowledged} · "
        f"transmissions {verdict.transmissions} · records in Kafka {verdict.records} · "
        f"of the senders' own repeats {verdict.repeats - verdict.twice} · "
        f"explained by the gateway's loss ledger {verdict.explained} of its {verdict.ledger} · "
        f"gone with a deleted topic {verdict.gone}"
    )
    print(
        f"missing {verdict.missing} · unknown {verdict.unknown} · altered {verdict.altered} · "
        f"out of order {verdict.out_of_order} · twice {verdict.twice}"
    )
    for example in examples:
        print(f"  {example}")


def arguments(commands) -> None:
    parser = commands.add_parser(
        "check",
        help="count what became of it",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--bootstrap", metavar="HOST:PORT,…")
    place.add_argument(
        "--records", metavar="FILE", help="lines of `tidegate buffer dump`, instead of Kafka"
    )
    add("--ledger", required=True, action="append", metavar="FILE")
    add("--acked", metavar="FILE", help="of `load --acks`: nothing else was acknowledged")
    add("--topic", action="append", help="Kafka topic to read; without any: all")
    add("--pattern", help="regular expression of Kafka topics to read")
    add("--recreated", help="regular expression of MQTT topics whose Kafka topic was deleted")
    add(
        "--by-time",
        action="store_true",
        help="order holds between partitions too: the topics grew, and have LogAppendTime",
    )
    add("--headers", action="store_true")
    add("--partitions-like-java", action="store_true")
    add("--metrics", action="append", default=[], metavar="URL", help="of the gateway: its drops")
    add("--explained", action="append", default=[], type=int, metavar="N", help="further drops")
    add("--deadline", type=float, default=120, help="seconds to read")
    add("--json", dest="as_json", action="store_true")
    parser.set_defaults(run=run)
