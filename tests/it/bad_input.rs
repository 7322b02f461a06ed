//! What has brought brokers down elsewhere, beside `noise`, `listeners` and `access`: repeats under
//! one packet id, topics as long and as deep as they may be, rules that cannot be read for want of
//! file descriptors, and ten thousand clients that hold half a packet each.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use crate::harness::gateway::binary;
use crate::harness::{Gateway, Kafka, run, wait};
use crate::noise::{entered, memory, take_many_files};

const REPEATS: usize = 1_000_000;
const HOLDERS: usize = 10_000;

/// A packet with a remaining length of up to two million bytes.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let byte = |shift: usize| u8::try_from(length >> shift & 0x7f).unwrap();
    let mut packet = vec![first, byte(0) | 0x80, byte(7) | 0x80, byte(14)];
    packet.extend_from_slice(body);
    packet
}

fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    [&length[..], text.as_bytes()].concat()
}

fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    stream.read_exact(&mut data).unwrap();
    data
}

#[test]
fn a_million_repeats_under_one_packet_id_are_one_record_and_no_memory() {
    let gateway = Gateway::start("127.0.0.1:1", "");
    let mut stream = entered(&gateway, "repeats");
    let publish = b"\x3c\x06\0\x01t\0\x01x";
    stream.write_all(publish).unwrap();
    assert_eq!(read(&mut stream, 4), [0x50, 2, 0, 1]);
    let before = memory(&gateway);
    let batch = publish.repeat(1_000);
    for _ in 0..REPEATS / 1_000 {
        stream.write_all(&batch).unwrap();
        let answers = read(&mut stream, 4_000);
        assert!(answers.chunks(4).all(|answer| answer == [0x50, 2, 0, 1]));
    }
    let grown = memory(&gateway) - before;
    eprintln!("{REPEATS} repeats: {:.2} MB more", grown / 1e6);
    assert!(grown < 4e6);
    assert_eq!(gateway.metrics().of("buffered_records"), 1.0);
}

#[test]
fn topics_as_long_and_as_deep_as_they_may_be_are_taken() {
    let kafka = Kafka::shared();
    kafka.create_topic("unusual", 2);
    let config = "[proxy]\ndefault_topic = \"unusual\"\nmax_packet_bytes = \"128KiB\"";
    let gateway = Gateway::start(&kafka.bootstrap, config);
    let deep = vec!["l"; 200].join("/");
    let long = "x".repeat(65_535);
    let topics = ["é/温度", "/", "//", " ", "$t", &deep, &long];
    let mut subscriber = entered(&gateway, "subscriber");
    let any = vec!["+"; 200].join("/");
    let too_deep = vec!["+"; 201].join("/");
    let mut subscribe = vec![0, 1];
    for filter in ["#", "$t", &any, &too_deep] {
        subscribe.extend([string(filter), vec![0]].concat());
    }
    subscriber.write_all(&packet(0x82, &subscribe)).unwrap();
    assert_eq!(read(&mut subscriber, 8), [0x90, 6, 0, 1, 0, 0, 0, 0x80]);
    let mut publisher = entered(&gateway, "publisher");
    for topic in topics {
        let body = [&string(topic)[..], &[0, 1], b"hi"].concat();
        publisher.write_all(&packet(0x32, &body)).unwrap();
        assert_eq!(read(&mut publisher, 4), [0x40, 2, 0, 1]);
        let mut head = read(&mut subscriber, 2);
        while head.last().is_some_and(|byte| byte & 0x80 != 0) {
            head.extend(read(&mut subscriber, 1));
        }
        let came = read(&mut subscriber, topic.len() + 4);
        assert_eq!(came, [&string(topic)[..], b"hi"].concat());
    }
    // None of these is one, and nobody else notices.
    for wrong in ["", "a/+", "a\0", "a/#"] {
        let mut stream = entered(&gateway, "wrong");
        stream.write_all(&packet(0x30, &string(wrong))).unwrap();
        assert_eq!(
            stream.read(&mut [0; 9]).unwrap_or(0),
            0,
            "{wrong:?} was taken"
        );
    }
    gateway.wait_drained(30);
    assert_eq!(gateway.metrics().of("sent_total"), topics.len() as f64);
}

#[test]
fn rules_stay_in_force_while_no_file_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let user = |name: &str, password: &str| {
        let mut tool = Command::new("mosquitto_passwd");
        let file = users.to_str().unwrap();
        run(tool
            .args(if users.exists() {
                &["-b"][..]
            } else {
                &["-b", "-c"]
            })
            .args([file, name, password]));
    };
    user("pump", "one");
    let config = format!("[proxy]\npassword_file = {users:?}");
    let mut gateway = Gateway::new("127.0.0.1:1", &config);
    let mut limited = Command::new("prlimit");
    gateway.launch(limited.arg("--nofile=120:120").arg(binary()));
    gateway.wait_ready();
    let comes_in = |user: &str, password: &str| {
        let port = gateway.mqtt.port().to_string();
        let mut client = Command::new("mosquitto_sub");
        client.args(["-p", &port, "-t", "x", "-E", "-u", user, "-P", password]);
        client.output().unwrap().status.success()
    };
    assert!(comes_in("pump", "one") && !comes_in("valve", "two"));
    let log = || std::fs::read_to_string(gateway.log_path()).unwrap();
    let tells = |what: &str| wait(what, 60, || log().contains(what).then_some(()));
    let mut crowd = Vec::new();
    wait("no file descriptor is left", 60, || {
        crowd.extend((0..20).map(|_| TcpStream::connect(gateway.mqtt).unwrap()));
        log().contains("cannot accept").then_some(())
    });
    user("valve", "two");
    tells("Too many open files (os error 24)\" right=\"name a text file");
    assert!(!log().contains("rules are read again"));
    drop(crowd);
    tells("rules are read again");
    wait("the new rules hold", 30, || {
        comes_in("valve", "two").then_some(())
    });
    assert!(comes_in("pump", "one"));
    assert!(!log().contains("panic"));
}

#[test]
fn ten_thousand_half_packets_fit_in_64_mb() {
    take_many_files();
    let gateway = Gateway::start("127.0.0.1:1", "[proxy]\nmax_connections = 12_000");
    let before = memory(&gateway);
    let half = [&packet(0x32, &[0; 1_000])[..3], b"\0\x01t\0\x01"].concat();
    let mut holders = Vec::with_capacity(HOLDERS);
    for at in 0..HOLDERS {
        let mut stream = entered(&gateway, &format!("holder-{at}"));
        if at == HOLDERS / 2 {
            let idle = (memory(&gateway) - before) / (at + 1) as f64;
            eprintln!("{at} with nothing on the way: {idle:.0} bytes each");
        }
        if at > HOLDERS / 2 {
            stream.write_all(&half).unwrap();
        }
        holders.push(stream);
    }
    for stream in &mut holders[..=HOLDERS / 2] {
        stream.write_all(&half).unwrap();
    }
    // A good client among them.
    let mut good = entered(&gateway, "good");
    good.write_all(&[0xc0, 0]).unwrap();
    assert_eq!(read(&mut good, 2), [0xd0, 0]);
    let grown = memory(&gateway) - before;
    let open = gateway.metrics().of("connections_open");
    eprintln!(
        "{open} connections with half a packet: {:.1} MB more",
        grown / 1e6
    );
    assert!(open > HOLDERS as f64 && grown <= 64.0 * 1024.0 * 1024.0);
}
