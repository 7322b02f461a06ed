"""The oracle: one program that loads the gateway with foreign clients, and judges what came of it.

load    paho-mqtt clients publish and write down what was acknowledged (the ledger)
check   confluent-kafka reads the topics to their end and compares them with the ledger
list    the acknowledged messages of a ledger, for `tidegate verify --ledger`
plant   records and a ledger with known faults, straight into Kafka: proves `check` itself
sample  payloads as they are, one a line
"""

import argparse
import sys

import check
import listing
import load
import payload
import plant


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="oracle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for command in (load, check, listing, plant, payload):
        command.arguments(commands)
    options = parser.parse_args()
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
