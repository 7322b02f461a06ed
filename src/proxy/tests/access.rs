//! Passwords, rights and pace over a pipe.

use std::path::PathBuf;

use super::*;
use crate::access::password::Hash;
use crate::access::{Rules, Watched};
use crate::config::checked::Listener;
use crate::proxy::access::Access;

/// A listener's rules, in files that can be changed.
struct Rulebook {
    folder: tempfile::TempDir,
    access: Arc<Access>,
}

impl Rulebook {
    fn new(passwords: Option<&str>, acl: Option<&str>, anonymous: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener {
            passwords: passwords.map(|text| rules(folder.path().join("passwords"), text)),
            acl: acl.map(|text| rules(folder.path().join("acl"), text)),
            allow_anonymous: anonymous,
            ..Listener::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        };
        let access = Arc::new(Access::of(&listener));
        Self { folder, access }
    }

    fn change(&self, file: &str, text: &str) -> bool {
        std::fs::write(self.folder.path().join(file), text).unwrap();
        self.access.refresh(true)
    }
}

fn rules<R: Rules>(path: PathBuf, text: &str) -> Arc<Watched<R>> {
    std::fs::write(&path, text).unwrap();
    Arc::new(Watched::open(path).unwrap())
}

fn line(user: &str, password: &[u8]) -> String {
    format!("{user}:{}\n", Hash::of(password).unwrap().text())
}

/// Knocks from a port of an address; the CONNACK is still to come.
async fn knock(b: &Bench, book: &Rulebook, from: u8, connect: &[u8]) -> Peer {
    let (near, far) = tokio::io::duplex(100_000);
    let visitor = Visitor {
        peer: socket::Peer::Net(SocketAddr::from((Ipv4Addr::new(10, 0, 0, from), 1))),
        deadline: Instant::now() + b.shared.config.connect_timeout,
        certified: None,
        access: Arc::clone(&book.access),
    };
    tokio::spawn(connection::serve(far, visitor, Arc::clone(&b.shared)));
    let mut peer = Peer(near);
    peer.send(connect).await;
    peer
}

/// CONNECT of client `c`, clean, with what it has of user name and password.
fn connect(version: u8, user: Option<&str>, password: Option<&[u8]>) -> Vec<u8> {
    let flags = 2 | u8::from(user.is_some()) << 7 | u8::from(password.is_some()) << 6;
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version, flags, 0, 0];
    body.extend((version == 5).then_some(0));
    body.extend_from_slice(b"\0\x01c");
    for field in [user.map(str::as_bytes), password].into_iter().flatten() {
        body.extend_from_slice(&[0, field.len() as u8]);
        body.extend_from_slice(field);
    }
    [&[0x10, body.len() as u8], &body[..]].concat()
}

/// The code of the CONNACK, in 3.1.1's words.
async fn code(b: &Bench, book: &Rulebook, from: u8, (user, password): (&str, &[u8])) -> u8 {
    let mut peer = knock(b, book, from, &connect(4, Some(user), Some(password))).await;
    peer.read(4).await[3]
}

#[tokio::test(start_paused = true)]
async fn who_says_a_wrong_password_stays_out() {
    let b = bench(&config());
    let book = Rulebook::new(Some(&line("pump", b"secret")), None, false);
    let tried = [
        (Some("pump"), Some(&b"secret"[..]), 0, 0),
        (Some("pump"), Some(b"Secret"), 4, 0x86),
        (Some("pump"), Some(b""), 4, 0x86),
        (Some("pump"), None, 4, 0x86),
        (Some("Pump"), Some(b"secret"), 4, 0x86),
        (Some(""), Some(b"secret"), 5, 0x87),
        (None, None, 5, 0x87),
    ];
    for (user, password, three, five) in tried {
        for (version, wanted) in [(4, three), (5, five)] {
            let mut peer = knock(&b, &book, version, &connect(version, user, password)).await;
            let head = peer.read(2).await;
            let rest = peer.read(usize::from(head[1])).await;
            assert_eq!(rest[1], wanted, "{version} {user:?} {password:?}");
        }
    }
    let failed = b.metrics.count(Counter::LoginsFailed);
    assert_eq!(failed, 8);
    let book = Rulebook::new(Some(&line("pump", b"secret")), None, true);
    let mut peer = knock(&b, &book, 9, &connect(4, None, None)).await;
    assert_eq!(peer.read(4).await[3], 0, "anybody may");
    assert_eq!(code(&b, &book, 9, ("pump", b"x")).await, 4);
}

#[tokio::test(start_paused = true)]
async fn who_is_wrong_too_often_waits_a_minute_at_that_address() {
    let b = bench(&config());
    let book = Rulebook::new(Some(&line("pump", b"secret")), None, false);
    for _ in 0..4 {
        assert_eq!(code(&b, &book, 1, ("pump", b"x")).await, 4);
    }
    // One that is right begins the count anew.
    assert_eq!(code(&b, &book, 1, ("pump", b"secret")).await, 0);
    for _ in 0..5 {
        assert_eq!(code(&b, &book, 1, ("pump", b"x")).await, 4);
    }
    assert_eq!(code(&b, &book, 1, ("pump", b"secret")).await, 4);
    assert_eq!(code(&b, &book, 2, ("pump", b"secret")).await, 0);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(code(&b, &book, 1, ("pump", b"secret")).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_user_who_is_gone_loses_its_connections() {
    let b = bench(&config());
    let (pump, valve) = (line("pump", b"1"), line("valve", b"2"));
    let book = Rulebook::new(Some(&format!("{pump}{valve}")), None, false);
    let mut peer = knock(&b, &book, 1, &connect(5, Some("pump"), Some(b"1"))).await;
    let head = peer.read(2).await;
    peer.read(usize::from(head[1])).await;
    assert!(!book.change("passwords", "pump:broken"), "the old hold");
    assert!(book.change("passwords", &pump));
    b.shared.sessions.look_at_passes();
    peer.silent().await;
    // Another hash of the same password is another password.
    assert!(book.change("passwords", &line("pump", b"1")));
    b.shared.sessions.look_at_passes();
    let code = packet::reason::NOT_AUTHORISED;
    assert_eq!(peer.read(3).await, [0xe0, 1, code]);
    peer.closed().await;
}

const ACL: &str = "topic read t\npattern write up/%c\n";

/// Of two letters of topic; QoS 1, packet id 1.
fn publish_to(version: u8, topic: &str, flags: u8) -> Vec<u8> {
    let mut body = vec![0, topic.len() as u8];
    body.extend_from_slice(topic.as_bytes());
    if flags & 6 > 0 {
        body.extend_from_slice(&[0, 1]);
    }
    body.extend((version == 5).then_some(0));
    body.push(b'!');
    [&[0x30 | flags, body.len() as u8], &body[..]].concat()
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_published_is_no_record() {
    let b = bench(&config());
    let book = Rulebook::new(None, Some(ACL), true);
    let mut five = knock(&b, &book, 1, &connect(5, None, None)).await;
    let head = five.read(2).await;
    five.read(usize::from(head[1])).await;
    let code = packet::reason::NOT_AUTHORISED;
    five.send(&publish_to(5, "t", 2)).await;
    assert_eq!(five.read(5).await, [0x40, 3, 0, 1, code]);
    five.send(&publish_to(5, "t", 4)).await;
    assert_eq!(five.read(5).await, [0x50, 3, 0, 1, code]);
    five.send(&publish_to(5, "t", 0)).await;
    five.send(&publish_to(5, "up/c", 2)).await;
    b.fake.wait(1).await;
    // A user name that nothing proves is not believed, and is in no pattern.
    let mut three = knock(&b, &book, 1, &connect(4, Some("t"), None)).await;
    assert_eq!(three.read(4).await[3], 0);
    three.send(&publish_to(4, "t", 2)).await;
    assert_eq!(three.read(4).await, [0x40, 2, 0, 1]);
    assert_eq!(b.fake.records.lock().len(), 1);
    assert_eq!(b.metrics.count(Counter::Denied), 4);
    let told = [(Refusal::Denied, "t".to_owned(), 1)];
    assert_eq!(*b.fake.refusals.lock(), [told.clone(), told].concat());
    // Other rules hold at once.
    book.change("acl", "topic write t");
    three.send(&publish_to(4, "t", 0)).await;
    b.fake.wait(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_will_needs_the_right_to_publish_it() {
    let b = bench(&config());
    let book = Rulebook::new(None, Some(ACL), true);
    for (topic, wills) in [("t", 0), ("up/c", 1)] {
        let mut body = b"\0\x04MQTT\x04\x06\0\0\0\x01c\0".to_vec();
        body.push(topic.len() as u8);
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(b"\0\x01!");
        let packet = [&[0x10, body.len() as u8], &body[..]].concat();
        let mut peer = knock(&b, &book, 1, &packet).await;
        peer.read(4).await;
        peer.send(&[0xff, 0]).await;
        peer.closed().await;
        assert_eq!(b.fake.records.lock().len(), wills, "{topic}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_not_read_is_sent_nothing_and_may_subscribe() {
    let b = bench(&config());
    let book = Rulebook::new(None, Some("topic read t\ntopic deny k"), true);
    let (mut publisher, _) = b.connect(4, 2, 0, "pub").await;
    publisher.send(&publish_to(4, "k", 1)).await;
    let mut peer = knock(&b, &book, 1, &connect(4, None, None)).await;
    peer.read(4).await;
    peer.send(b"\x82\x06\0\x01\0\x01#\x01").await;
    assert_eq!(peer.read(5).await, [0x90, 3, 0, 1, 1]);
    for topic in ["a", "t", "k"] {
        publisher.send(&publish_to(4, topic, 0)).await;
    }
    assert_eq!(peer.read(6).await, b"\x30\x04\0\x01t!");
    peer.silent().await;
    assert_eq!(b.metrics.count(Counter::UndeliveredDenied), 3);
    // What waits is looked at again when it is sent.
    book.change("acl", "topic deny #");
    publisher.send(&publish_to(4, "t", 0)).await;
    peer.silent().await;
}

#[tokio::test(start_paused = true)]
async fn who_publishes_too_fast_is_not_read_and_loses_nothing() {
    let mut c = config();
    c.max_publishes_per_second = Some(2);
    let b = bench(&c);
    tokio::time::advance(Duration::from_secs(5)).await;
    let (mut peer, _) = b.connect(4, 2, 1, "c").await;
    let begun = Instant::now();
    let batch: Vec<u8> = (0..8).flat_map(|_| publish_to(4, "t", 0)).collect();
    peer.send(&batch).await;
    peer.send(&[0xc0, 0]).await;
    // Held beyond its keep-alive of a second, and not closed for it.
    assert_eq!(peer.read(2).await, [0xd0, 0]);
    assert_eq!(b.fake.records.lock().len(), 8);
    let took = begun.elapsed();
    assert!((2_900..3_200).contains(&took.as_millis()), "{took:?}");
}
