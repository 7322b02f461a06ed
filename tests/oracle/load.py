"""Foreign clients: paho-mqtt publishes as devices do, through every death of the gateway.

Each client keeps at most `window` messages unacknowledged. When its connection ends it comes back
and repeats them in order; at QoS 1 by a new paho client and with the attempt in the payload raised,
so that repeats of the sender are told from copies made by the gateway; at QoS 2 within its
persistent session, where the protocol forbids a second record whatever happens.

Prints a line of JSON a second: what is sent, acknowledged, repeated so far. Ends when all messages
are acknowledged, when `--drain` seconds have passed since the last new one, or, with
`--until-eof`, starts to end when standard input closes.
"""

import argparse
import json
import multiprocessing
import os
import random
import selectors
import sys
import threading
import time
from collections import OrderedDict

import paho.mqtt.client as mqtt

import ledger
import payload

RECONNECT_SECONDS = (0.05, 0.3)
MAX_PAUSE = 0.05
# Shared with the parent, a row a process: sent, acknowledged, repeated, connects, connected now.
FIGURES = ("sent", "acked", "repeated", "connects", "connected")
SENT, ACKED, REPEATED, CONNECTS, CONNECTED = range(len(FIGURES))


class Device:
    """One paho client and its unacknowledged messages."""

    def __init__(self, book: ledger.Client, options: argparse.Namespace, totals, selector):
        self.book = book
        self.options = options
        self.totals = totals
        self.selector = selector
        self.pending: OrderedDict[int, float] = OrderedDict()  # counter → time of the last send
        self.by_packet: dict[int, int] = {}
        self.latencies: list[float] = []
        self.up = False
        self.open = False
        self.retry_at = 0.0
        self.acks = None
        if options.acks:
            self.acks = os.open(options.acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.paho = self._new_paho()

    def _new_paho(self) -> mqtt.Client:
        version = {"3": mqtt.MQTTv311, "5": mqtt.MQTTv5}.get(self.options.protocol)
        if version is None:
            version = (mqtt.MQTTv311, mqtt.MQTTv5)[self.book.index % 2]
        paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=self.book.id,
            protocol=version,
            clean_session=None if version == mqtt.MQTTv5 else self.book.qos < 2,
            reconnect_on_failure=False,
        )
        paho.max_inflight_messages_set(0)
        paho.connect_timeout = 2
        paho.on_connect = self._on_connect
        paho.on_publish = self._on_publish
        paho.on_socket_open = self._on_open
        paho.on_socket_close = self._on_close
        return paho

    def connect(self, now: float) -> None:
        self.retry_at = now + random.uniform(*RECONNECT_SECONDS)
        if self.book.qos < 2:
            self.paho = self._new_paho()
            self.by_packet.clear()
        host, port = self.options.mqtt.rsplit(":", 1)
        extra = {}
        if self.paho.protocol == mqtt.MQTTv5:
            extra["clean_start"] = self.book.qos < 2
            if self.book.qos == 2:
                extra["properties"] = mqtt.Properties(mqtt.PacketTypes.CONNECT)
                extra["properties"].SessionExpiryInterval = 3600
        try:
            self.paho.connect(host, int(port), keepalive=60, **extra)
        except OSError:
            return

    def _on_connect(self, _paho, _data, _flags, reason, _properties) -> None:
        if reason.is_failure:
            return
        self.up = True
        self.totals[CONNECTS] += 1
        self.totals[CONNECTED] += 1

    def repeat(self, now: float) -> None:
        """After a reconnect: everything unacknowledged again, in order (QoS 2: paho does)."""
        if self.book.qos == 2:
            return
        for counter in list(self.pending):
            if not self.up:
                return
            self.send(counter, now)

    def _on_open(self, _paho, _data, socket) -> None:
        self.open = True
        self.selector.register(socket, selectors.EVENT_READ, self)

    def _on_close(self, _paho, _data, socket) -> None:
        """Before the descriptor is given back: the next connection may get the same number."""
        self.open = False
        self.selector.unregister(socket)
        if self.up:
            self.up = False
            self.totals[CONNECTED] -= 1

    def send(self, counter: int, now: float) -> None:
        book = self.book
        attempt = book.sent[counter]
        book.sent[counter] += 1
        self.pending[counter] = now
        value = payload.make(book.kind, book.size, book.id, counter, attempt)
        info = self.paho.publish(book.topic(counter), value, qos=book.qos)
        self.by_packet[info.mid] = counter
        self.totals[SENT if attempt == 0 else REPEATED] += 1
        if book.qos == 0:
            del self.pending[counter]

    def send_new(self, now: float) -> None:
        self.book.sent.append(0)
        self.book.acked.append(0)
        self.send(len(self.book.sent) - 1, now)

    def _on_publish(self, _paho, _data, packet, reason, _properties) -> None:
        counter = self.by_packet.pop(packet, None)
        sent_at = self.pending.pop(counter, None)
        if sent_at is None:
            return
        if reason.is_failure:
            self.book.refused += 1
            return
        self.book.acked[counter] = 1
        self.totals[ACKED] += 1
        if self.acks is not None:
            os.write(self.acks, f"{self.book.id} {counter}\n".encode())
        self.latencies.append(time.monotonic() - sent_at)

    def turn(self, now: float, readable: bool) -> None:
        """Reads what came; connects and repeats where that is due."""
        was_up = self.up
        if readable:
            self.paho.loop_read()
        if self.open and self.paho.want_write():
            self.paho.loop_write()
        if not self.open:
            if now >= self.retry_at:
                self.connect(now)
        elif self.up and not was_up:
            self.repeat(now)


def work(options: argparse.Namespace, books: list[ledger.Client], totals, stop, results) -> None:
    """One process: its share of the clients in one loop."""
    selector = selectors.EpollSelector()
    devices = [Device(book, options, totals, selector) for book in books]
    share = len(books) / options.clients
    quota = options.count * share if options.count else float("inf")
    rate = options.rate * share
    begin = time.monotonic()
    end = begin + options.seconds if options.seconds else float("inf")
    made, turn, drained_at, misc_at = 0, 0, None, begin
    parent = os.getppid()
    while os.getppid() == parent:
        now = time.monotonic()
        if drained_at is None and (stop.is_set() or now >= end or made >= quota):
            drained_at = now + options.drain
        if drained_at is not None and (
            now >= drained_at or not any(device.pending for device in devices)
        ):
            break
        if drained_at is None:
            due = min(quota, rate * (now - begin) if rate else quota)
            made, turn = publish(devices, options.window, made, due, turn, now)
        ready = {key.data for key, _ in selector.select(0.001 if rate else MAX_PAUSE)}
        now = time.monotonic()
        for device in devices:
            if device in ready or not device.up or device.paho.want_write():
                device.turn(now, device in ready)
        if now >= misc_at:
            misc_at = now + 1
            for device in devices:
                device.paho.loop_misc()
    for device in devices:
        device.paho.disconnect()
    latencies = sorted(value for device in devices for value in device.latencies)
    if os.getppid() != parent:
        return  # nobody reads what would have to be read before this process may end
    results.put((books, latencies))


def publish(devices, window, made, due, turn, now) -> tuple[float, int]:
    """New messages, client by client in turn, as rate and windows allow."""
    idle = 0
    while made < due and idle < len(devices):
        device = devices[turn % len(devices)]
        turn += 1
        if device.up and len(device.pending) < window:
            device.send_new(now)
            made += 1
            idle = 0
        else:
            idle += 1
    return made, turn


def run(options: argparse.Namespace) -> int:
    books = [
        ledger.Client(
            id=f"{options.name}-{index}",
            index=index,
            qos=options.qos,
            kind="json" if options.json else "padded",
            size=options.size,
            prefix=options.prefix or options.name,
            clients=options.clients,
            topics=options.topics,
            groups=options.groups,
        )
        for index in range(options.clients)
    ]
    stop = multiprocessing.Event()
    results = multiprocessing.Queue()
    count = min(options.processes, options.clients)
    totals = [multiprocessing.RawArray("q", len(FIGURES)) for _ in range(count)]
    workers = [
        multiprocessing.Process(
            target=work, args=(options, books[n::count], totals[n], stop, results), daemon=True
        )
        for n in range(count)
    ]
    for worker in workers:
        worker.start()
    if options.until_eof:
        threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    return finish(options, workers, results, totals, stop)


def finish(options, workers, results, totals, stop) -> int:
    """Reports each second, then writes the ledger."""
    begin = time.monotonic()
    parts = []
    while len(parts) < len(workers):
        try:
            parts.append(results.get(timeout=1))
        except multiprocessing.queues.Empty:
            report(totals, begin)
            if any(worker.exitcode for worker in workers):
                print("a load process died", file=sys.stderr)
                return 1
        except KeyboardInterrupt:
            stop.set()
    books = sorted((book for part in parts for book in part[0]), key=lambda book: book.index)
    ledger.write(options.ledger, books)
    latencies = sorted(value for part in parts for value in part[1]) or [0.0]
    report(
        totals,
        begin,
        refused=sum(book.refused for book in books),
        p50_ms=round(latencies[len(latencies) // 2] * 1000, 2),
        p99_ms=round(latencies[len(latencies) * 99 // 100] * 1000, 2),
        max_ms=round(latencies[-1] * 1000, 2),
        done=True,
    )
    return 0


def report(totals, begin: float, **more) -> None:
    now = {name: sum(row[at] for row in totals) for at, name in enumerate(FIGURES)}
    print(json.dumps({"seconds": round(time.monotonic() - begin, 2), **now, **more}), flush=True)


def arguments(commands) -> None:
    parser = commands.add_parser(
        "load",
        help="publish as devices do",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--mqtt", required=True, metavar="HOST:PORT")
    add("--ledger", required=True, metavar="FILE")
    add("--acks", metavar="FILE", help="grows by a line, CLIENT COUNTER, with each acknowledgement")
    add("--name", default="it", help="first part of client ids")
    add("--prefix", help="first level of topics; default: the name")
    add("--clients", type=int, default=10)
    add("--topics", type=int, default=50, help="MQTT topics PREFIX/gG/tT")
    add("--groups", type=int, default=1, help="different G in them")
    add("--qos", type=int, default=1, choices=(0, 1, 2))
    add("--protocol", default="mixed", choices=("3", "5", "mixed"))
    add("--window", type=int, default=20, help="unacknowledged messages a client")
    add("--rate", type=float, default=0, help="messages a second of all clients; 0: no limit")
    add("--count", type=int, default=0, help="messages in all; 0: no end")
    add("--seconds", type=float, default=0, help="time for new messages; 0: no end")
    add("--until-eof", action="store_true", help="new messages until standard input closes")
    add("--drain", type=float, default=60, help="seconds to wait for what is unacknowledged")
    add("--size", type=int, default=128, help="bytes of a payload")
    add("--json", action="store_true", help="payloads of 112 bytes of JSON")
    add("--processes", type=int, default=2, help="that share the clients")
    parser.set_defaults(run=run)
