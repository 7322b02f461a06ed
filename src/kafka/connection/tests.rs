//! Against a listener that answers as each test wants.

use super::*;
use crate::kafka::security::Security;
use tokio::net::{TcpListener, TcpStream};

const TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_MAX: usize = 1000;

/// A connection and the broker's end of it.
async fn pair() -> (Arc<Connection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let stream = Security::default().secure(ours.unwrap(), "").await.unwrap();
    let manner = Manner {
        client_id: StrBytes::from_static_str("test"),
        request_timeout: TIMEOUT,
        response_bytes_max: ANSWER_MAX,
    };
    let connection = Connection::start(stream, "broker:1".into(), &manner);
    (Arc::new(connection), theirs.unwrap().0)
}

type Call = tokio::task::JoinHandle<Result<Bytes, Error>>;

/// Sends a request of eight bytes: its id and "ping", in two pieces.
fn ask(connection: &Arc<Connection>, id: i32) -> Call {
    let connection = Arc::clone(connection);
    let pieces = vec![
        Bytes::copy_from_slice(&id.to_be_bytes()),
        Bytes::from_static(b"ping"),
    ];
    tokio::spawn(async move { connection.send(id, pieces).await })
}

async fn hear(broker: &mut TcpStream, id: i32) {
    assert_eq!(broker.read_i32().await.unwrap(), id);
    let mut rest = [0; 4];
    broker.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"ping");
}

async fn say(broker: &mut TcpStream, length: i32, id: i32, rest: &[u8]) {
    broker.write_i32(length).await.unwrap();
    broker.write_i32(id).await.unwrap();
    broker.write_all(rest).await.unwrap();
}

#[tokio::test]
async fn requests_overlap_and_each_gets_its_own_answer() {
    let (connection, mut broker) = pair().await;
    let mut calls = Vec::new();
    for id in 1..=100 {
        calls.push(ask(&connection, id));
        tokio::task::yield_now().await;
    }
    for id in 1..=100 {
        hear(&mut broker, id).await;
        say(&mut broker, 7, id, &[id as u8; 3]).await;
    }
    for (id, call) in (1u8..).zip(calls) {
        assert_eq!(call.await.unwrap().unwrap(), [0, 0, 0, id, id, id, id][..]);
    }
}

#[tokio::test]
async fn a_length_that_lies_closes_before_anything_is_allocated() {
    for length in [-1, 0, 3, ANSWER_MAX as i32 + 1, i32::MAX] {
        let (connection, mut broker) = pair().await;
        let (call, behind) = (ask(&connection, 1), ask(&connection, 2));
        hear(&mut broker, 1).await;
        say(&mut broker, length, 1, b"").await;
        for call in [call, behind] {
            let error = call.await.unwrap().unwrap_err();
            assert!(matches!(error, Error::Malformed { .. }), "{error}");
        }
        assert!(connection.is_closed());
        let error = ask(&connection, 3).await.unwrap().unwrap_err();
        assert!(!matches!(error, Error::NoBroker(_)), "{error}");
    }
}

#[tokio::test]
async fn an_answer_to_nobody_closes() {
    for asked in [false, true] {
        let (connection, mut broker) = pair().await;
        let call = asked.then(|| ask(&connection, 1));
        if let Some(call) = call {
            hear(&mut broker, 1).await;
            say(&mut broker, 4, 2, b"").await;
            call.await.unwrap().unwrap_err();
        } else {
            say(&mut broker, 4, 1, b"").await;
        }
        connection.shared.closed.cancelled().await;
    }
}

#[tokio::test]
async fn an_answer_cut_short_is_lost() {
    let (connection, mut broker) = pair().await;
    let call = ask(&connection, 1);
    hear(&mut broker, 1).await;
    say(&mut broker, 100, 1, b"only so much").await;
    drop(broker);
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_says_nothing_is_left_at_the_deadline() {
    let (connection, mut broker) = pair().await;
    let began = Instant::now();
    let calls = [ask(&connection, 1), ask(&connection, 2)];
    hear(&mut broker, 1).await;
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        let Error::Lost { source, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(source.kind(), ErrorKind::TimedOut);
    }
    assert!(began.elapsed() >= TIMEOUT && began.elapsed() < TIMEOUT * 2);
}

/// A broker answers one request of a connection at a time.
#[tokio::test]
async fn who_waits_behind_another_has_the_whole_time_from_its_answer_on() {
    let (connection, mut broker) = pair().await;
    let calls = [ask(&connection, 1), ask(&connection, 2)];
    for (id, call) in (1..).zip(calls) {
        hear(&mut broker, id).await;
        tokio::time::sleep(TIMEOUT * 3 / 4).await;
        say(&mut broker, 5, id, b"x").await;
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_behind_a_throttled_answer_has_its_time_and_the_whole_of_its_own() {
    let (connection, mut broker) = pair().await;
    let began = Instant::now();
    let calls = [ask(&connection, 1), ask(&connection, 2)];
    hear(&mut broker, 1).await;
    say(&mut broker, 5, 1, b"x").await;
    let [first, second] = calls;
    first.await.unwrap().unwrap();
    connection.muted(TIMEOUT * 5);
    second.await.unwrap().unwrap_err();
    assert!(began.elapsed() >= TIMEOUT * 6 && began.elapsed() < TIMEOUT * 7);
}

/// Also when whoever asked has gone: the next would wait behind it for nothing.
#[tokio::test(start_paused = true)]
async fn the_deadline_holds_for_a_call_that_was_dropped() {
    let (connection, mut broker) = pair().await;
    let call = ask(&connection, 1);
    hear(&mut broker, 1).await;
    call.abort();
    connection.shared.closed.cancelled().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_the_others_their_answers() {
    let (connection, mut broker) = pair().await;
    let calls = [ask(&connection, 1), ask(&connection, 2)];
    hear(&mut broker, 1).await;
    hear(&mut broker, 2).await;
    let [first, second] = calls;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    say(&mut broker, 5, 1, b"x").await;
    say(&mut broker, 5, 2, b"y").await;
    assert_eq!(second.await.unwrap().unwrap(), [0, 0, 0, 2, b'y'][..]);
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn closing_tells_everyone_and_the_broker() {
    let (connection, mut broker) = pair().await;
    let call = ask(&connection, 1);
    hear(&mut broker, 1).await;
    connection.close("enough");
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "no answer from broker:1: enough");
    assert_eq!(broker.read(&mut [0; 8]).await.unwrap(), 0);
}
