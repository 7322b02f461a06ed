//! Legal Kafka topic names from any text.
//!
//! The rule: a name has letters, digits, `.`, `_` and `-` of ASCII, 1 to 249 of them, and is not
//! `.` or `..` (`org.apache.kafka.common.internals.Topic`). Every other character becomes `_`. A
//! name that is then too long keeps its first 232 bytes, followed by `-` and 16 hex digits: FNV-1a
//! of the name before it was changed, so that long names stay apart. `.`, `..` and the empty name
//! become `_`, `__` and `_`.

/// Longest name Kafka takes.
pub const NAME_BYTES_MAX: usize = 249;
const KEPT: usize = NAME_BYTES_MAX - 17;

/// The legal name for `text`.
#[must_use]
pub fn kafka_topic(text: &str) -> String {
    match text {
        "" | "." => return "_".to_owned(),
        ".." => return "__".to_owned(),
        _ => {}
    }
    let mut name: String = text
        .chars()
        .map(|c| if is_legal(c) { c } else { '_' })
        .collect();
    if name.len() > NAME_BYTES_MAX {
        // All ASCII by now: any cut is between characters.
        name.truncate(KEPT);
        name.push_str(&format!("-{:016x}", fnv1a(text.as_bytes())));
    }
    name
}

fn is_legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// The name as Kafka's metrics see it, where `.` and `_` are the same: two topics that differ in
/// nothing else collide there, and Kafka refuses to create the second.
#[must_use]
pub fn metric_name(topic: &str) -> String {
    topic.replace('.', "_")
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>).
fn fnv1a(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_legal_stays_and_the_rest_becomes_underscores() {
        assert_eq!(kafka_topic("plant-7.line_2"), "plant-7.line_2");
        assert_eq!(kafka_topic("a/b c/é温"), "a_b_c___");
        assert_eq!(kafka_topic(""), "_");
        assert_eq!(kafka_topic("."), "_");
        assert_eq!(kafka_topic(".."), "__");
        assert_eq!(kafka_topic("..."), "...");
    }

    #[test]
    fn long_names_stay_apart() {
        let one = kafka_topic(&format!("{}a", "x".repeat(300)));
        let two = kafka_topic(&format!("{}b", "x".repeat(300)));
        assert_eq!(one.len(), NAME_BYTES_MAX);
        assert_ne!(one, two);
        assert_eq!(fnv1a(b"foobar"), 0x85944171f73967e8);
    }

    proptest! {
        #[test]
        fn every_text_gives_a_legal_name(text in ".{0,400}") {
            let name = kafka_topic(&text);
            prop_assert!((1..=NAME_BYTES_MAX).contains(&name.len()));
            prop_assert!(name.chars().all(is_legal));
            prop_assert!(name != "." && name != "..");
        }
    }
}
