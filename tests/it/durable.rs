//! What the gateway keeps of its clients through `kill -9` and power cuts: QoS 2 from device to
//! Kafka and to a subscriber, counted at both ends, sessions, and a retained message.
//!
//! `TIDEGATE_POWER_CUTS=200` makes more cuts than six a file system. Those need root: loop devices.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{Gateway, Kafka, pause, python, uplink};
use crate::power::Disk;

const CONFIG: &str = r#"
[proxy]
default_topic = "durable"
max_queued_messages = 100_000
max_queued_bytes = "16MiB"
"#;
const KILLS: u32 = 10;

/// One publisher and one subscriber with sessions of their own, QoS 2, until its input ends; then
/// it waits for the rest and prints what came how often.
const PAHO: &str = r#"
import sys, threading, time, json, collections, paho.mqtt.client as m
port, version = int(sys.argv[1]), int(sys.argv[2])
lock, counts = threading.Lock(), collections.Counter()
connects, present = collections.Counter(), collections.Counter()
granted = threading.Event()

# Paho forgets at its second try to connect that PUBREC had come, and sends the message anew.
MessageState, reset = m.MessageState, m.Client._messages_reconnect_reset_out
def reset_once(self):
    due = MessageState.MQTT_MS_RESEND_PUBREL
    mine = [it for it in self._out_messages.values() if it.state == due]
    reset(self)
    for it in mine: it.state = due
m.Client._messages_reconnect_reset_out = reset_once

def client(name):
    five = version == 5
    c = m.Client(m.CallbackAPIVersion.VERSION2, client_id=f"{name}-{version}",
                 protocol=version, **({} if five else {"clean_session": False}))
    def connected(c, u, flags, rc, p):
        connects[name] += 1; present[name] += flags.session_present
    c.on_connect = connected
    c.reconnect_delay_set(0.05, 0.2)
    c.max_inflight_messages_set(20)
    c.max_queued_messages_set(0)
    options = {}
    if five:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        options = {"clean_start": False, "properties": properties}
    c.connect("127.0.0.1", port, keepalive=10, **options)
    return c

first, again = {}, []
def on_message(c, u, msg):
    n = int(msg.payload)
    with lock:
        counts[n] += 1
        now = (connects["sub"], msg.mid, int(msg.dup), time.time())
        if n in first: again.append((n, first[n], now))
        first.setdefault(n, now)

sub = client("sub")
sub.on_message = on_message
sub.on_subscribe = lambda c, u, i, rcs, p: granted.set()
sub.loop_start(); sub.subscribe("d/#", 2)
assert granted.wait(30)
pub = client("pub")
completed = 0
def published(*_):
    global completed
    completed += 1
pub.on_publish = published
pub.loop_start()
stop = threading.Event()
def listen():
    sys.stdin.read(); stop.set()
threading.Thread(target=listen, daemon=True).start()
sent = 0
while not stop.is_set():
    pub.publish(f"d/{sent % 7}", str(sent), 2); sent += 1
    while sent - completed > 500 and not stop.is_set(): time.sleep(0.002)
    time.sleep(0.001)
end = time.monotonic() + 60
while (len(counts) < sent or completed < sent) and time.monotonic() < end: time.sleep(0.02)
time.sleep(0.5)
twice = {k: n for k, n in counts.items() if n > 1}
print(json.dumps({"sent": sent, "completed": completed, "got": len(counts), "twice": len(twice),
                  "again": again[:3], "connects": connects, "present": present}))
for c in (pub, sub): c.disconnect(); c.loop_stop()
"#;

#[test]
fn qos_2_is_once_at_both_ends_through_kills() {
    for version in ["4", "5"] {
        let kafka = Kafka::shared();
        let topic = format!("durable-{version}");
        kafka.create_topics([&*topic], 3);
        let config = CONFIG.replace("durable", &topic);
        let gateway = Gateway::start(&kafka.bootstrap, &config);
        once_at_both_ends(kafka, gateway, (version, &topic), KILLS, |kill, gateway| {
            pause(Duration::from_millis(u64::from(kill) * 17));
            gateway.kill9();
            gateway.up();
        });
    }
}

#[test]
fn qos_2_is_once_at_both_ends_through_power_cuts() {
    let cuts = std::env::var("TIDEGATE_POWER_CUTS");
    let cuts: u32 = cuts.map_or(6, |text| text.parse().unwrap());
    let kafka = Kafka::start(1, &[]);
    for (version, kind) in [("4", "xfs"), ("5", "ext4")] {
        let topic = format!("durable-{version}");
        kafka.create_topics([&*topic], 3);
        let disk = Disk::new(kind);
        let data = disk.mount_point().join("data");
        let config = format!(
            "[gateway]\ndata_dir = {data:?}\n[spool]\nmax_bytes = \"200MiB\"\n\
             min_free_bytes = \"16MiB\"\n{}",
            CONFIG.replace("durable", &topic)
        );
        let gateway = Gateway::start(&kafka.bootstrap, &config);
        once_at_both_ends(&kafka, gateway, (version, &topic), cuts, |cut, gateway| {
            // Kafka up; then down; then back, with the backlog on its way.
            match cut % 3 {
                1 => kafka.cluster("kill", &["1"]),
                2 => kafka.cluster("restart", &["1"]),
                _ => {}
            }
            pause(Duration::from_millis(u64::from(cut) * 17));
            assert!(disk.power_cut(gateway), "the cut did not bite");
        });
    }
}

/// Two clients with sessions, whose gateway goes down in the midst of it `blows` times.
fn once_at_both_ends(
    kafka: &Kafka,
    mut gateway: Gateway,
    (version, topic): (&str, &str),
    blows: u32,
    mut blow: impl FnMut(u32, &mut Gateway),
) {
    let port = gateway.mqtt.port().to_string();
    let retained = [
        "-p", &*port, "-i", "r", "-q", "1", "-t", "state", "-r", "-m", "on",
    ];
    let status = Command::new("mosquitto_pub").args(retained).status();
    assert!(status.unwrap().success());
    let mut python = python()
        .args(["-c", PAHO, &port, version])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = python.stdout.take().unwrap();
    let mut open = 0.0;
    for at in 0..blows {
        let had = gateway.metrics().of("acknowledged_total");
        gateway.wait_figure("acknowledged_total", 60, |n| n >= had + 100.0);
        open += gateway.metrics().of("kept_entries");
        blow(at, &mut gateway);
    }
    // More, after the last.
    gateway.wait_figure("acknowledged_total", 60, |n| n >= 100.0);
    drop(python.stdin.take());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(python.wait().unwrap().success(), "{rest}");
    let done: serde_json::Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    gateway.wait_drained(60);
    let found = uplink::read(kafka, topic);
    let mut values: Vec<&String> = found.values().flatten().collect();
    values.retain(|value| *value != "on");
    let records = values.len();
    values.sort_unstable();
    let pairs = values.windows(2).filter(|two| two[0] == two[1]);
    let again: Vec<_> = pairs.map(|two| two[0]).take(3).collect();
    values.dedup();
    eprintln!(
        "MQTT {version}: {blows} blows with {open} entries kept in all; the clients: {done}; \
         in Kafka {records} records, {} of them different; twice {again:?}",
        values.len()
    );
    let sent = done["sent"].as_u64().unwrap();
    assert_eq!(done["completed"].as_u64(), Some(sent), "not completed");
    assert_eq!(values.len() as u64, sent, "missing in Kafka");
    assert_eq!(records as u64, sent, "twice in Kafka");
    assert_eq!(
        done["got"].as_u64(),
        Some(sent),
        "missing at the subscriber"
    );
    assert_eq!(done["twice"].as_u64(), Some(0), "twice at the subscriber");
    for client in ["pub", "sub"] {
        let connects = done["connects"][client].as_u64().unwrap();
        assert!(connects > u64::from(blows), "the blows did not bite");
        let present = done["present"][client].as_u64();
        assert_eq!(present, Some(connects - 1), "a session was not there");
    }
    let first = format!("-p {port} -t state -C 1 -W 9 -F %r:%p");
    let mut sub = Command::new("mosquitto_sub");
    let output = sub.args(first.split(' ')).output().unwrap();
    assert_eq!(output.stdout, b"1:on\n");
    assert!(gateway.stop().success());
}
