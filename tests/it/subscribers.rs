//! Local delivery: foreign clients subscribe at the gateway to what it takes for Kafka.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use crate::harness::{Gateway, Kafka, Load, oracle, python};

const ROUTES: &str = r#"
[proxy]
max_queued_messages = 10_000
max_queued_bytes = "16MiB"
[[proxy.route]]
mqtt = "site/+group/#rest"
topic = "site-{group}"
"#;

/// A `mosquitto_sub` that ends after so many messages, or a minute.
fn mosquitto_sub(gateway: &Gateway, messages: u32, arguments: &str) -> Child {
    let mut command = Command::new("mosquitto_sub");
    command
        .args(["-p", &gateway.mqtt.port().to_string()])
        .args(["-W", "60", "-F", "%t", "-C", &messages.to_string()])
        .args(arguments.split_whitespace())
        .stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn lines(mut child: Child) -> usize {
    let mut text = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    text.lines().count()
}

#[test]
fn what_goes_to_kafka_goes_to_subscribers_and_is_shared_by_groups() {
    let kafka = Kafka::shared();
    kafka.create_topics(["site-g0", "site-g1"], 3);
    let mut gateway = Gateway::start(&kafka.bootstrap, ROUTES);
    let all = mosquitto_sub(&gateway, 3_000, "-i all -V mqttv5 -q 2 -t site/#");
    let old = mosquitto_sub(&gateway, 3_000, "-i old -V mqttv311 -q 1 -t site/+/#");
    let group = ["one", "two"].map(|id| {
        let arguments = format!("-i {id} -V mqttv5 -q 1 -t $share/pair/site/#");
        mosquitto_sub(&gateway, 1_500, &arguments)
    });
    gateway.wait_figure("subscriptions", 20, |n| n >= 4.0);
    let arguments = "--clients 5 --topics 40 --groups 2 --count 3000 --size 100 --prefix site";
    let load = Load::start(&gateway, "site", arguments);
    let ledger = load.ledger.clone();
    assert_eq!(load.finish().acked, 3_000);
    let counts = [lines(all), lines(old)];
    let shared = group.map(lines);
    eprintln!("of 3,000: {counts:?} each, {shared:?} shared");
    assert_eq!(counts, [3_000; 2]);
    assert_eq!(shared, [1_500; 2]);
    gateway.wait_drained(60);
    let verdict = oracle::check(kafka, &[&ledger], "--pattern site-.* --headers");
    verdict.expect_clean("the road beside local delivery");
    assert_eq!(verdict.records, 3_000);
    for reason in ["qos0", "full", "expired", "too_large"] {
        let name = format!("undelivered_total{{reason=\"{reason}\"}}");
        assert_eq!(gateway.metrics().of(&name), 0.0);
    }
    assert!(gateway.stop().success());
}

/// Prints how many messages it had published. Subscribers are told by name what they got.
const PAHO: &str = r#"
import sys, threading, time, paho.mqtt.client as m
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
port, version = int(sys.argv[1]), int(sys.argv[2])
base, published = f"paho/{version}", 0

class Peer:
    def __init__(self, name, clean=True, will=None):
        five = version == 5
        self.got, self.more = [], threading.Condition()
        self.c = m.Client(m.CallbackAPIVersion.VERSION2, client_id=f"{name}-{version}",
                          protocol=version, **({} if five else {"clean_session": clean}))
        self.c.on_message = self.on_message
        self.c.on_connect = lambda c, u, f, rc, p: self.note(("connected", f.session_present))
        granted = lambda rcs: ("granted", [rc.value for rc in rcs])
        self.c.on_subscribe = lambda c, u, i, rcs, p: self.note(granted(rcs))
        if will: self.c.will_set(*will)
        options = {}
        if five:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if clean else 600
            options = {"clean_start": clean, "properties": properties}
        self.c.connect("127.0.0.1", port, **options); self.c.loop_start()
    def note(self, what):
        with self.more: self.got.append(what); self.more.notify_all()
    def on_message(self, c, u, msg):
        self.note((msg.topic[len(base) + 1:], msg.payload.decode(), msg.qos, msg.retain))
    def expect(self, *wanted):
        with self.more:
            assert self.more.wait_for(lambda: len(self.got) >= len(wanted), 30), (wanted, self.got)
            # paho shows a QoS 2 message at its PUBREL: order is by QoS.
            by_qos = lambda what: what[2] if len(what) == 4 else -1
            wanted = sorted(wanted, key=by_qos)
            assert sorted(self.got, key=by_qos) == wanted, (wanted, self.got)
            self.got = []
    def subscribe(self, topic, qos, granted=None):
        self.c.subscribe(f"{base}/{topic}", qos); self.expect(("granted", [qos]))
    def publish(self, topic, text, qos, retain=False):
        global published
        published += 1
        info = self.c.publish(f"{base}/{topic}", text, qos, retain); info.wait_for_publish(30)
        assert info.is_published()
    def stop(self, politely=True):
        if politely: self.c.disconnect()
        else: self.c._sock.shutdown(2)
        self.c.loop_stop()

pub = Peer("pub"); pub.expect(("connected", False))
sub = Peer("sub", clean=False); sub.expect(("connected", False))
sub.subscribe("+/x", 2)
for qos in (0, 1, 2): pub.publish("live/x", f"q{qos}", qos)
sub.expect(*[("live/x", f"q{qos}", qos, False) for qos in (0, 1, 2)])
# Queued while away, without QoS 0.
sub.stop()
for n in range(30): pub.publish("away/x", str(n), n % 3)
sub = Peer("sub", clean=False)
sub.expect(("connected", True), *[("away/x", str(n), n % 3, False) for n in range(30) if n % 3])
# Retained: set, found by a new subscription, cleared.
pub.publish("kept/y", "old", 1, True); pub.publish("kept/y", "new", 1, True)
sub.c.subscribe(f"{base}/kept/#", 1)
sub.expect(("granted", [1]), ("kept/y", "new", 1, True))
pub.publish("kept/y", "", 1, True); sub.expect(("kept/y", "", 1, False))
sub.c.subscribe(f"{base}/kept/#", 1); sub.expect(("granted", [1]))
# A will, of a client that breaks off and of one that says goodbye.
dying = Peer("dying", will=(f"{base}/will/x", "gone", 1)); dying.expect(("connected", False))
dying.stop(politely=False)
sub.expect(("will/x", "gone", 1, False)); published += 1
polite = Peer("polite", will=(f"{base}/will/x", "never", 1)); polite.expect(("connected", False))
polite.stop()
sub.c.unsubscribe(f"{base}/kept/#")
pub.publish("last/x", "end", 1); sub.expect(("last/x", "end", 1, False))
sub.stop(); pub.stop()
print(published)
"#;

#[test]
fn paho_gets_every_qos_what_waited_what_is_retained_and_wills() {
    let kafka = Kafka::shared();
    kafka.create_topics(["subscribers"], 3);
    let config = "[proxy]\ndefault_topic = \"subscribers\"";
    let gateway = Gateway::start(&kafka.bootstrap, config);
    let mut published = 0;
    for version in ["4", "5"] {
        let port = gateway.mqtt.port().to_string();
        let mut python = python();
        let output = python.args(["-c", PAHO, &port, version]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "MQTT {version}: {errors}");
        published += text.trim().parse::<u32>().unwrap();
    }
    gateway.wait_drained(60);
    let sent = gateway.metrics().of("sent_total");
    eprintln!("{published} messages published, {sent} in Kafka");
    assert_eq!(sent, f64::from(published));
}
