"""mosquitto_pub and mosquitto_sub: VERSION TRANSPORT PORT [CA]. One subscribes, the other
publishes; ends with 0 when all has come back."""
import subprocess
import sys

WANTED = {"0": "zero", "1": "one", "2": "two", "big": "x" * 100_000}


def main(version, transport, port, ca=None):
    base = f"foreign/mosquitto/{version}/{transport}"
    common = ["-h", "localhost", "-p", port, "-V", {"4": "mqttv311", "5": "mqttv5"}[version]]
    common += ["--cafile", ca] if ca else []
    # What it is for comes behind what tells that it listens, which is retained.
    tell(common, f"{base}/ready", "ready", 1, ["-r"])
    words = ["-t", f"{base}/#", "-q", "2", "-W", "30", "-C", str(1 + len(WANTED)), "-F", "%t %p"]
    with subprocess.Popen(
        ["mosquitto_sub", *common, *words], stdout=subprocess.PIPE, text=True
    ) as listener:
        listener.stdout.readline()
        for name, text in WANTED.items():
            tell(common, f"{base}/{name}", text, 1 if name == "big" else int(name))
        came = dict(line.rstrip("\n").split(" ", 1) for line in listener.stdout)
    assert came == {f"{base}/{name}": text for name, text in WANTED.items()}, list(came)
    print("all came back")


def tell(common, topic, text, qos, more=()):
    words = ["-t", topic, "-q", str(qos), "-s", *more]
    subprocess.run(["mosquitto_pub", *common, *words], input=text, text=True, check=True)


main(*sys.argv[1:])
