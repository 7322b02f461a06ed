//! Any text as a password file, and as an ACL file that a client is held against.
//!
//! input: user 0 u8 client id 0 u8 topic 0 u8 the file's text

use std::sync::Arc;

use tidegate::access::acl::{Acl, Action, Rights};
use tidegate::access::password::{Passwords, edited, is_user};
use tidegate::access::{Rules as _, Watched};
use tidegate::mqtt_topic;

const MEMORY_BYTES_MAX: usize = 16 << 20;
const HASH: &str = "$7$1$YQ==$EO/lLlkeUgIiBaS8G8UK0ZMP1u508TA7Tl+AdJ1cEsmlbGyEPAERErpfq84j1kepISs0\
                    UzmcdL4ucgZ2uodxfQ==";

/// The target.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut parts = text.splitn(4, '\0');
    let mut next = || parts.next().unwrap_or_default();
    let (user, client_id, topic, file) = (next(), next(), next(), next());
    super::within(MEMORY_BYTES_MAX, || {
        passwords(user, file);
        acl((user, client_id), topic, file);
    });
}

/// A file that is read is read when a user was added, who is then in it, and the others still are.
fn passwords(user: &str, file: &str) {
    let Ok(before) = Passwords::read(file) else {
        return;
    };
    if !is_user(user) {
        return;
    }
    let was_there = before.of(user).is_some();
    let fresh = edited(file, user, Some(HASH)).expect("a user who is added");
    let after = Passwords::read(&fresh).expect("as good as before");
    assert_eq!(after.of(user).expect("it was added").text(), HASH);
    assert_eq!(after.count(), before.count() + usize::from(!was_there));
}

/// More allowing lines take no right away, a denial of everything takes all that the client's own
/// lines and no pattern gave.
fn acl((user, client_id): (&str, &str), topic: &str, file: &str) {
    let Ok(acl) = Acl::read(file) else {
        return;
    };
    let user = (!user.is_empty()).then_some(user);
    let allowed = rights(acl, user, client_id, topic);
    if mqtt_topic::name(topic.as_bytes()).is_err() {
        return;
    }
    let more = Acl::read(&format!("{file}\npattern readwrite none/of/these"));
    let more = more.expect("as good as before");
    assert_eq!(rights(more, user, client_id, topic), allowed);
    if let Some(user) = user.filter(|user| user.trim() == *user && !user.contains(['\n', '\r'])) {
        let root = if topic.starts_with('$') {
            "$SYS/#"
        } else {
            "#"
        };
        let denied = Acl::read(&format!("{file}\nuser {user}\ntopic deny {root}"));
        let denied = denied.expect("as good as before");
        if root == "#" {
            assert_eq!(rights(denied, Some(user), client_id, topic), [false, false]);
        }
    }
}

fn rights(acl: Acl, user: Option<&str>, client_id: &str, topic: &str) -> [bool; 2] {
    let file = Arc::new(Watched::still(acl));
    let mut rights = Rights::of(file, user.map(Into::into), client_id.into());
    [Action::Read, Action::Write].map(|action| rights.allow(action, topic.as_bytes()))
}
