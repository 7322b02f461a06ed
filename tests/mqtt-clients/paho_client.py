"""paho-mqtt: VERSION TRANSPORT PORT [CA]. Subscribes, publishes to itself, and ends with 0 when all
has come back."""
import sys
import threading

import paho.mqtt.client as mqtt

WANTED = {"0": "zero", "1": "one", "2": "two", "big": "x" * 100_000}


def main(version, transport, port, ca=None):
    base = f"foreign/paho/{version}/{transport}"
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        protocol=mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311,
        transport="websockets" if transport.startswith("ws") else "tcp",
    )
    if ca:
        client.tls_set(ca)
    wanted, over = dict(WANTED), threading.Event()

    def on_subscribe(*_):
        for name, text in WANTED.items():
            client.publish(f"{base}/{name}", text, 1 if name == "big" else int(name))

    def on_message(_client, _userdata, message):
        name = message.topic.removeprefix(f"{base}/")
        assert message.payload.decode() == wanted.pop(name), name
        if not wanted:
            over.set()

    client.on_connect = lambda *_: client.subscribe(f"{base}/#", 2)
    client.on_subscribe, client.on_message = on_subscribe, on_message
    client.connect("localhost", int(port))
    client.loop_start()
    assert over.wait(30), f"missing: {list(wanted)}"
    client.disconnect()
    client.loop_stop()
    print("all came back")


main(*sys.argv[1:])
