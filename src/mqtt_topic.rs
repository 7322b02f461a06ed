//! Which topic names, topic filters and strings MQTT allows (sections 1.5.4 and 4.7).

/// Longest topic, in bytes: what two bytes can say.
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// The topic as text, if a message may carry it: not empty, UTF-8, no U+0000, no wildcards.
///
/// # Errors
/// What is wrong with it.
pub fn name(topic: &[u8]) -> Result<&str, &'static str> {
    if topic.is_empty() {
        return Err("empty topic");
    }
    if topic.len() > TOPIC_BYTES_MAX {
        return Err("topic too long");
    }
    let text = str::from_utf8(topic).map_err(|_| "topic is not UTF-8")?;
    if topic.iter().any(|byte| matches!(byte, b'+' | b'#')) {
        return Err("wildcard in a topic");
    }
    if !is_text(text) {
        return Err("character not allowed in a topic");
    }
    Ok(text)
}

/// Whether a filter of SUBSCRIBE is well formed: `+` and `#` fill a level, `#` the last one.
#[must_use]
pub fn is_filter(filter: &str) -> bool {
    if filter.is_empty() || !is_text(filter) {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wild = level.contains(['+', '#']);
        if (wild && level.len() > 1) || (level == "#" && levels.peek().is_some()) {
            return false;
        }
    }
    true
}

/// The group of a `$share/GROUP/FILTER`, if it is one, and the filter proper; `None` if it is not
/// well formed.
#[must_use]
pub fn split_share(filter: &str) -> Option<(Option<&str>, &str)> {
    let (group, filter) = match filter.strip_prefix("$share/") {
        None => (None, filter),
        Some(rest) => {
            let (group, filter) = rest.split_once('/')?;
            let valid = !group.is_empty() && !group.contains(['+', '#']) && is_text(group);
            (Some(group).filter(|_| valid), valid.then_some(filter)?)
        }
    };
    (filter != "$share" && is_filter(filter)).then_some((group, filter))
}

/// Whether a string is free of U+0000, which MQTT forbids, and of the control characters and
/// non-characters that section 1.5.4 lets a server refuse; mosquitto does.
#[must_use]
pub fn is_text(text: &str) -> bool {
    text.chars().all(|c| {
        let code = u32::from(c);
        !c.is_control() && !(0xfdd0..=0xfdef).contains(&code) && code & 0xfffe != 0xfffe
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_utf_8_without_wildcards_and_nul() {
        for good in ["a", "/", "é/温度", "$SYS/x", "a//b", " "] {
            assert_eq!(name(good.as_bytes()), Ok(good));
        }
        let long = vec![b'x'; TOPIC_BYTES_MAX];
        assert!(name(&long).is_ok());
        for bad in [&b""[..], b"a/+", b"#", b"a\0b", b"\xff", b"\xed\xa0\x80"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn shares_have_a_group_and_a_filter() {
        assert_eq!(split_share("a/#"), Some((None, "a/#")));
        assert_eq!(split_share("$share/g/a/+"), Some((Some("g"), "a/+")));
        assert_eq!(split_share("$share/g//"), Some((Some("g"), "/")));
        for bad in [
            "$share",
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
        ] {
            assert_eq!(split_share(bad), None, "{bad}");
        }
    }

    #[test]
    fn filters_have_wildcards_as_whole_levels() {
        for good in ["#", "+", "a/+/b", "a/#", "/", "+/+", "$share/g/t"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in [
            "", "a#", "a/#/b", "a+/b", "##", "a\0", "a\u{1}", "\u{9f}", "\u{ffff}",
        ] {
            assert!(!is_filter(bad), "{bad}");
        }
    }
}
