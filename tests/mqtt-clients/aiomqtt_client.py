"""aiomqtt: VERSION TRANSPORT PORT [CA]. Subscribes, publishes to itself, and ends with 0 when all
has come back."""
import asyncio
import ssl
import sys

import aiomqtt

WANTED = {"0": "zero", "1": "one", "2": "two", "big": "x" * 100_000}


async def main(version, transport, port, ca=None):
    base = f"foreign/aiomqtt/{version}/{transport}"
    protocol = {"4": aiomqtt.ProtocolVersion.V311, "5": aiomqtt.ProtocolVersion.V5}[version]
    client = aiomqtt.Client(
        "localhost",
        int(port),
        protocol=protocol,
        transport="websockets" if transport.startswith("ws") else "tcp",
        tls_context=ssl.create_default_context(cafile=ca) if ca else None,
    )
    wanted = dict(WANTED)
    async with client:
        await client.subscribe(f"{base}/#", qos=2)
        for name, text in WANTED.items():
            await client.publish(f"{base}/{name}", text, qos=1 if name == "big" else int(name))
        async for message in client.messages:
            name = message.topic.value.removeprefix(f"{base}/")
            assert message.payload.decode() == wanted.pop(name), name
            if not wanted:
                break
    print("all came back")


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 30))
