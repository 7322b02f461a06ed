//! Any text as topic filters, and a topic: who subscribes to a filter, what is retained and what a
//! route takes are found by different code, which must agree with the specification and each other.
//!
//! input: a topic, then a filter a line

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tidegate::mqtt_topic;
use tidegate::proxy::local::queue::{Limits, Outbox};
use tidegate::proxy::local::retained;
use tidegate::proxy::local::tree::{LEVELS_MAX, Options, Subscription, Tree};
use tidegate::proxy::routes::pattern::Pattern;

const MEMORY_BYTES_MAX: usize = 64 << 20;

/// The target.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let topic = lines.next().unwrap_or_default();
    super::within(MEMORY_BYTES_MAX, || subscribe(topic, lines));
}

fn subscribe<'t>(topic: &str, lines: impl Iterator<Item = &'t str>) {
    let is_topic = mqtt_topic::name(topic.as_bytes()).is_ok();
    let limits = Arc::new(Limits {
        messages_max: 0,
        bytes_max: 0,
        total_max: 0,
        total: AtomicUsize::new(0),
        metrics: Arc::default(),
    });
    let mut tree = Tree::default();
    let (mut all, mut wanted) = (Vec::new(), BTreeSet::new());
    for (line, number) in lines.zip(1..) {
        let filter = match mqtt_topic::split_share(line) {
            Some((None, filter)) if filter.split('/').count() <= LEVELS_MAX => filter,
            _ => continue,
        };
        let to = Arc::new(Outbox::new(number, "c".into(), Arc::clone(&limits), None));
        let options = Options::default();
        let is_new = tree.insert(None, filter, Subscription { to, options });
        assert_eq!(is_new, Some(true));
        all.push((number, filter));
        if !is_topic {
            continue;
        }
        let matches = covers(filter, topic);
        assert_eq!(
            retained::matches(filter, topic.as_bytes()),
            matches,
            "retained {filter:?}"
        );
        let pattern = Pattern::parse(filter).expect("a filter is a route's, too");
        assert_eq!(
            pattern.captures(topic).is_some(),
            matches,
            "route {filter:?}"
        );
        if matches {
            wanted.insert(number);
        }
    }
    if is_topic {
        let matching = tree.matching(topic.as_bytes());
        let found = matching.iter().flat_map(|here| here.direct.keys());
        assert_eq!(
            found.copied().collect::<BTreeSet<_>>(),
            wanted,
            "subscribers"
        );
    }
    for (number, filter) in all {
        assert!(tree.remove(None, filter, number));
    }
    assert_eq!(tree.bytes(), 0, "nothing is left of who went");
}

/// Section 4.7, as it is written: level by level.
fn covers(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    match filter.split_last() {
        Some((&"#", parents)) => {
            topic.len() >= parents.len() && equal(parents, &topic[..parents.len()])
        }
        _ => filter.len() == topic.len() && equal(&filter, &topic),
    }
}

fn equal(filter: &[&str], topic: &[&str]) -> bool {
    filter
        .iter()
        .zip(topic)
        .all(|(wanted, level)| *wanted == "+" || wanted == level)
}
