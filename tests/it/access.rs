//! Passwords, ACL files and users by certificate, held against a real mosquitto with the same
//! files, with clients that nobody here wrote.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::gateway::{binary, signal};
use crate::harness::{Gateway, Kafka, Mosquitto, python, run, wait};

const USERS: [(&str, &str); 4] = [
    ("root", "top"),
    ("pump", "secret"),
    ("valve", "pässword with spaces"),
    ("odd", "x"),
];

/// `end/…` tells a subscriber that all has come.
const ACL: &str = "\
topic read site/#
topic deny site/secret
topic read end/#

user root
topic #

user pump
topic write pumps/1/#
topic readwrite both ways
topic deny pumps/1/firmware
topic pumps/any
user valve
topic read valves/+
topic write +/valve
user odd
topic read end/#
user pump
topic read site/+
pattern write devices/%c/up
pattern read users/%u/#
pattern read end/%c
pattern deny devices/%c/up/raw
pattern %u/%c
";

/// Logs in with each pair, in both versions, and prints who came in.
const LOGINS: &str = r#"
import json, sys, threading, paho.mqtt.client as m
port = int(sys.argv[1])
pairs = json.loads(sys.argv[2])
out = []
for version in (4, 5):
    for user, password in pairs:
        c = m.Client(m.CallbackAPIVersion.VERSION2, protocol=version)
        if user is not None: c.username_pw_set(user, password)
        told, end = [], threading.Event()
        def on_connect(c, u, flags, reason, props): told.append(not reason.is_failure); end.set()
        c.on_connect = on_connect
        c.on_disconnect = lambda *_: end.set()
        c.connect("127.0.0.1", port)
        c.loop_start()
        assert end.wait(20), (user, "no answer")
        c.disconnect(); c.loop_stop()
        out.append((version, user, password, bool(told and told[0])))
print(json.dumps(out))
"#;

/// Each user publishes to each topic while root listens, subscribes to everything while root
/// publishes, and leaves a will. Prints what came through.
const MATRIX: &str = r##"
import json, sys, threading, paho.mqtt.client as m
port, version = int(sys.argv[1]), int(sys.argv[2])
passwords = dict(json.loads(sys.argv[3]))
TOPICS = ["site", "site/a", "site/a/b", "site/secret", "pumps/1/x", "pumps/1/firmware", "pumps/any",
          "both ways", "valves/1", "valves/1/2", "x/valve", "devices/c1/up", "devices/c2/up",
          "devices/c1/up/raw", "users/pump/a", "users/valve", "users//a", "pump/c1", "nobody/c1",
          "/", "other"]
WHO = [(None, "c1"), ("pump", "c1"), ("pump", "c2"), ("valve", "c1"), ("valve", "c/1"),
       ("odd", "a+b"), ("odd", "#")]

WILLS = ("pumps/1/x", "pumps/1/firmware", "x/valve", "devices/c1/up")

class Client:
    def __init__(self, user, client_id, will=None):
        self.c = m.Client(m.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version,
                          reconnect_on_failure=False)
        if user: self.c.username_pw_set(user, passwords[user])
        if will: self.c.will_set(will, f"will of {user}/{client_id}", 1)
        self.got = []
        self.ready, self.subscribed, self.ended = (threading.Event() for _ in range(3))
        self.c.on_connect = lambda *_: self.ready.set()
        self.c.on_subscribe = lambda *_: self.subscribed.set()
        def on_message(c, u, msg):
            if msg.topic.startswith("end/"): self.ended.set()
            else: self.got.append([msg.topic, msg.payload.decode(), bool(msg.retain)])
        self.c.on_message = on_message
        self.c.connect("127.0.0.1", port)
        self.c.loop_start()
        assert self.ready.wait(20), (user, client_id)
    def listen(self):
        self.c.subscribe("#", 1)
        assert self.subscribed.wait(20)
    def send(self, topic, payload, qos=1, retain=False):
        self.send_all([(topic, payload, qos, retain)])
    def send_all(self, messages):
        # Not one after the other: Nagle's algorithm and delayed acknowledgements cost 40 ms each.
        sent = [self.c.publish(*message) for message in messages]
        for one in sent: one.wait_for_publish(20)
    def leave(self):
        self.c.disconnect(); self.c.loop_stop()

def end(root, listener):
    listener.ended.clear()
    root.send("end/" + ("x" if "+" in ID or "#" in ID else ID), "end")
    assert listener.ended.wait(20), "end did not come"
    got, listener.got = listener.got, []
    return sorted(got)

out = []
root = Client("root", "root")
root.send("site/kept", "kept", retain=True)
root.send("site/secret", "kept", retain=True)
root.listen()
ID = "root"
end(root, root)
for user, ID in WHO:
    who = Client(user, ID)
    who.send_all((topic, f"{user}/{ID} {qos}", qos) for topic in TOPICS for qos in range(3))
    who.leave()
    out.append(("wrote", user, ID, end(root, root)))
    who = Client(user, ID)
    who.listen()
    root.send_all((topic, "root", 1) for topic in TOPICS)
    out.append(("read", user, ID, end(root, who)))
    who.leave()
    # The wills come before what tells of the end: a server publishes them when it sees the end.
    for topic in WILLS:
        who = Client(user, ID, will=topic)
        who.c.socket().shutdown(2)
        who.c.loop_stop()
    again = Client(user, ID)
    again.leave()
    out.append(("wills", user, ID, end(root, root)))
root.leave()
print(json.dumps(out))
"##;

/// A password file made by mosquitto's own tool.
fn passwords_of_mosquitto(folder: &Path) -> PathBuf {
    let path = folder.join("passwords");
    fs::write(&path, "").unwrap();
    for (user, password) in USERS {
        let mut tool = Command::new("mosquitto_passwd");
        run(tool.arg("-b").arg(&path).args([user, password]));
    }
    path
}

fn script(text: &str, port: u16, arguments: &[&str]) -> serde_json::Value {
    let mut command = python();
    command.args(["-c", text, &port.to_string()]);
    let text = run(command.args(arguments));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn who_comes_in_at_mosquitto_comes_in_here_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = passwords_of_mosquitto(folder.path());
    let mut pairs: Vec<(Option<&str>, Option<&str>)> = vec![(None, None)];
    for (user, password) in USERS {
        pairs.push((Some(user), Some(password)));
    }
    pairs.extend([
        (Some("pump"), Some("Secret")),
        (Some("pump"), Some("")),
        (Some("pump"), None),
        (Some("nobody"), Some("secret")),
        (Some(""), Some("secret")),
        (Some("pump:"), Some("secret")),
    ]);
    let pairs = serde_json::to_string(&pairs).unwrap();
    for anonymous in [false, true] {
        let files = format!(
            "password_file {}\nallow_anonymous {anonymous}",
            passwords.display()
        );
        let mosquitto = Mosquitto::start(&files);
        let config =
            format!("[proxy]\npassword_file = {passwords:?}\nallow_anonymous = {anonymous}");
        let gateway = Gateway::start("127.0.0.1:1", &config);
        let theirs = script(LOGINS, mosquitto.port(), &[&pairs]);
        let ours = script(LOGINS, gateway.mqtt.port(), &[&pairs]);
        assert_eq!(ours, theirs, "anonymous {anonymous}");
        let all = ours.as_array().unwrap();
        let came = all.iter().filter(|one| one[3] == true).count();
        eprintln!(
            "anonymous {anonymous}: {came} of {} came in, at both",
            all.len()
        );
        assert_eq!(came, if anonymous { 12 } else { 8 });
    }
}

#[test]
fn an_acl_file_means_here_what_it_means_at_mosquitto() {
    let kafka = Kafka::shared();
    kafka.create_topic("rights", 1);
    let folder = tempfile::tempdir().unwrap();
    let passwords = passwords_of_mosquitto(folder.path());
    let acl = folder.path().join("acl");
    fs::write(&acl, ACL).unwrap();
    let files = format!(
        "password_file {}\nacl_file {}\nallow_anonymous true",
        passwords.display(),
        acl.display()
    );
    let users = serde_json::to_string(&USERS).unwrap();
    for version in ["4", "5"] {
        let mosquitto = Mosquitto::start(&files);
        let config = format!(
            "[proxy]\ndefault_topic = 'rights'\nallow_anonymous = true\n\
             password_file = {passwords:?}\nacl_file = {acl:?}"
        );
        let gateway = Gateway::start(&kafka.bootstrap, &config);
        let theirs = script(MATRIX, mosquitto.port(), &[version, &users]);
        let ours = script(MATRIX, gateway.mqtt.port(), &[version, &users]);
        let (ours, theirs) = (ours.as_array().unwrap(), theirs.as_array().unwrap());
        let mut messages = 0;
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(ours, theirs, "MQTT {version}");
            messages += ours[3].as_array().unwrap().len();
        }
        let denied = gateway.metrics().of("dropped_total{reason=\"denied\"}");
        eprintln!("MQTT {version}: {messages} messages came through at both, {denied} denied here");
        assert!(messages > 50 && denied > 50.0 && ours.len() == theirs.len());
    }
}

/// `tidegate passwd`, as a script would use it.
fn passwd(file: &Path, arguments: &[&str], password: &str) -> String {
    let mut command = Command::new(binary());
    command.arg("passwd").arg(file).args(arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may have ended without reading.
    drop(writeln!(stdin, "{password}"));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let (out, error) = (output.stdout, output.stderr);
    String::from_utf8([out, error].concat()).unwrap()
}

#[test]
fn users_are_made_changed_and_taken_out_while_the_gateway_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let said = passwd(&file, &["pump"], "one");
    assert!(
        said.contains("made, for its owner to read, with pump"),
        "{said}"
    );
    let gateway = Gateway::start("127.0.0.1:1", &format!("[proxy]\npassword_file = {file:?}"));
    let comes_in = |user: &str, password: &str| {
        let port = gateway.mqtt.port().to_string();
        let mut command = Command::new("mosquitto_sub");
        command.args(["-p", &port, "-t", "x", "-E", "-u", user, "-P", password]);
        command.output().unwrap().status.success()
    };
    assert!(comes_in("pump", "one") && !comes_in("pump", "two") && !comes_in("valve", "two"));

    let log = || fs::read_to_string(gateway.log_path()).unwrap();
    // Trying until it works would lock the user.
    let read_again = |times: usize| {
        wait("the file is read again", 20, || {
            let said = log().matches("read again, and in force").count();
            (said >= times).then_some(())
        });
    };
    let said = passwd(&file, &["valve"], "two");
    assert!(said.contains("has a new password of valve"), "{said}");
    read_again(1);
    assert!(comes_in("valve", "two"));
    // A subscriber whose password changes is sent away, and comes back no more.
    let port = gateway.mqtt.port().to_string();
    let mut subscriber = Command::new("mosquitto_sub")
        .args(["-p", &port, "-t", "x", "-V", "5", "-u", "pump", "-P", "one"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    gateway.wait_figure("subscriptions", 20, |n| n >= 1.0);
    passwd(&file, &["pump"], "three");
    gateway.wait_figure("connections_open", 20, |n| n == 0.0);
    assert!(comes_in("pump", "three") && !comes_in("pump", "one"));
    drop(subscriber.kill());
    drop(subscriber.wait());

    let good = fs::read_to_string(&file).unwrap();
    for (bad, why) in [("", "holds no user"), ("pump:three", "line 1: no hash")] {
        fs::write(&file, bad).unwrap();
        signal(gateway.pid(), "HUP");
        wait("it is told", 20, || log().contains(why).then_some(()));
        assert!(comes_in("pump", "three"), "the old rules hold");
    }
    let said = passwd(&file, &["valve", "--delete"], "");
    assert!(said.contains("line 1: no hash that is known"), "{said}");
    fs::write(&file, good).unwrap();
    let said = passwd(&file, &["valve", "--delete"], "");
    assert!(said.contains("is without valve"), "{said}");
    wait("valve is out", 20, || {
        (!comes_in("valve", "two")).then_some(())
    });
    assert!(comes_in("pump", "three"));
    assert!(passwd(&file, &["a:b"], "x").contains("cannot be a user"));
    assert!(passwd(&file, &["a"], "").contains("the password is empty"));
}

/// Types at a terminal: passwd's exit code, what it said, whether the terminal is as it was.
const TERMINAL: &str = r#"
import json, os, subprocess, sys, termios
def at(program, file, keys):
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    end = dict.fromkeys(["stdin", "stdout", "stderr"], theirs)
    run = subprocess.Popen([program, "passwd", file, "u"], **end)
    said = b""
    for key in keys:
        while not said.endswith(b": "): said += os.read(ours, 100)
        # Only then is the terminal silent.
        while termios.tcgetattr(theirs)[3] & termios.ECHO: pass
        os.write(ours, key.encode())
        said += b"|"
    code = run.wait(30)
    os.write(theirs, b"END")
    while not said.endswith(b"END"): said += os.read(ours, 100)
    return [code, said.decode(), termios.tcgetattr(theirs) == before]
print(json.dumps(at(sys.argv[1], sys.argv[2], sys.argv[3:])))
"#;

#[test]
fn a_password_is_typed_unseen_and_ctrl_c_leaves_the_terminal_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let typed = |keys: &[&str]| {
        let mut command = python();
        command.args(["-c", TERMINAL]).arg(binary()).arg(&file);
        let output = command.args(keys).output().unwrap();
        serde_json::from_slice::<(i32, String, bool)>(&output.stdout).unwrap()
    };
    for (keys, code, said) in [
        (&["hid\u{3}"][..], 3, "interrupted"),
        (&["hidden\n", "hid\u{3}"], 3, "interrupted"),
        (&["hidden\n", "hiddem\n"], 3, "differ"),
        (&["hidden\n", "hidden\n"], 0, "made"),
    ] {
        assert!(!file.exists());
        let (ended, told, as_it_was) = typed(keys);
        assert!(ended == code && told.contains(said), "{ended} {told:?}");
        assert!(as_it_was && !told.contains("hid"), "{told:?}");
    }
    assert!(file.exists());
}
