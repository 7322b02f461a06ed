"""The acknowledged messages of a ledger as `tidegate verify --ledger` takes them: a line of JSON a
message with its key (the MQTT topic) and its value, of all attempts at sending it."""

import argparse
import base64
import json

import ledger
import payload


def run(options: argparse.Namespace) -> int:
    for client in ledger.read(options.ledger).values():
        for counter, acked in enumerate(client.acked):
            if not acked:
                continue
            values = [
                payload.make(client.kind, client.size, client.id, counter, attempt)
                for attempt in range(client.sent[counter])
            ]
            line = {
                "key": client.topic(counter),
                "values_base64": [base64.b64encode(value).decode() for value in values],
            }
            print(json.dumps(line))
    return 0


def arguments(commands) -> None:
    parser = commands.add_parser("list", help="what was acknowledged", description=__doc__)
    parser.add_argument("--ledger", required=True, action="append", metavar="FILE")
    parser.set_defaults(run=run)
