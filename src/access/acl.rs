//! ACL files, in the syntax of mosquitto and with its meaning.
//!
//! ```text
//! topic read site/info            # before the first `user`: for clients without a user name
//! user pump-7
//! topic readwrite pumps/7/#
//! topic deny pumps/7/firmware     # a denial goes before what allows
//! pattern write devices/%c/up     # for everybody: %c is the client id, %u the user name
//! ```
//! `read` is what a client is sent, `write` what it publishes; neither word means both. What no
//! line allows is denied. Anybody may subscribe to anything and gets what they may read.
//! <https://mosquitto.org/man/mosquitto-conf-5.html>, `acl_file`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Rules, Watched, Wrong, lines};
use crate::mqtt_topic::is_filter;

/// What a client does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is sent it.
    Read,
    /// It publishes it.
    Write,
}

/// What a line allows of a filter's topics; neither: it denies both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allows {
    read: bool,
    write: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    filter: Box<str>,
    allows: Allows,
}

/// The rules of some clients: denials first, and else in their order.
#[derive(Clone, Debug, Default)]
struct List(Vec<Rule>);

/// What an ACL file says.
#[derive(Debug, Default)]
pub struct Acl {
    anonymous: List,
    users: BTreeMap<Box<str>, List>,
    /// For everybody, with `%c` and `%u` in their filters.
    patterns: List,
}

impl List {
    fn add(&mut self, rule: Rule) {
        let denials = self.0.iter().take_while(|rule| rule.allows.denies());
        let at = match rule.allows.denies() {
            true => denials.count(),
            false => self.0.len(),
        };
        self.0.insert(at, rule);
    }
}

impl Allows {
    fn denies(self) -> bool {
        !self.read && !self.write
    }
}

impl Rules for Acl {
    const KEY: &'static str = "acl_file";

    fn read(text: &str) -> Result<Self, Wrong> {
        let mut acl = Self::default();
        let mut user: Option<Box<str>> = None;
        let mut rules = 0;
        for (line, text) in lines(text) {
            let wrong = |(found, right)| Wrong { line, found, right };
            let text = text.trim();
            let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            let rest = rest.trim();
            match word {
                "user" if rest.is_empty() => {
                    let found = "`user` without a name".to_owned();
                    return Err(wrong((found, "write `user NAME`")));
                }
                "user" => user = Some(rest.into()),
                "topic" => {
                    let rule = rule(rest).map_err(wrong)?;
                    let list = match &user {
                        None => &mut acl.anonymous,
                        Some(user) => acl.users.entry(user.clone()).or_default(),
                    };
                    list.add(rule);
                    rules += 1;
                }
                "pattern" => {
                    acl.patterns.add(rule(rest).map_err(wrong)?);
                    rules += 1;
                }
                _ => {
                    let right = "begin the line with `user`, `topic` or `pattern`";
                    return Err(wrong((format!("unknown word {word:?}"), right)));
                }
            }
        }
        if rules == 0 {
            return Err(Wrong {
                line: 0,
                found: "holds no rule".to_owned(),
                right: "write at least one `topic` or `pattern`; `topic deny #` denies all",
            });
        }
        Ok(acl)
    }
}

/// `[read|write|readwrite|deny] FILTER`. A filter with a space in it needs its access written.
fn rule(text: &str) -> Result<Rule, (String, &'static str)> {
    const RIGHT: &str = "write `topic [read|write|readwrite|deny] FILTER`";
    let of = |read, write| Allows { read, write };
    let (allows, filter) = match text.split_once(char::is_whitespace) {
        None => (of(true, true), text),
        Some((access, filter)) => {
            let allows = match access {
                "read" => of(true, false),
                "write" => of(false, true),
                "readwrite" => of(true, true),
                "deny" => of(false, false),
                _ => return Err((format!("unknown access {access:?}"), RIGHT)),
            };
            (allows, filter.trim())
        }
    };
    if filter.is_empty() {
        return Err(("no topic filter".to_owned(), RIGHT));
    }
    if !is_filter(filter) {
        return Err((
            format!("{filter:?} is no topic filter"),
            "let `+` and `#` fill a level, `#` the last one",
        ));
    }
    Ok(Rule {
        filter: filter.into(),
        allows,
    })
}

/// What one client may do, by the file as it is now.
#[derive(Debug)]
pub struct Rights {
    file: Arc<Watched<Acl>>,
    generation: u64,
    user: Option<Arc<str>>,
    client_id: Arc<str>,
    /// The client's own list, then the patterns with its names in them.
    rules: Vec<Rule>,
}

impl Rights {
    /// Of a client; `user` is a name that was proved.
    #[must_use]
    pub fn of(file: Arc<Watched<Acl>>, user: Option<Arc<str>>, client_id: Arc<str>) -> Self {
        let generation = file.generation();
        let rules = rules_of(&file.current(), user.as_deref(), &client_id);
        Self {
            file,
            generation,
            user,
            client_id,
            rules,
        }
    }

    /// Whether the client may do this with messages of a topic.
    pub fn allow(&mut self, action: Action, topic: &[u8]) -> bool {
        let generation = self.file.generation();
        if generation != self.generation {
            self.generation = generation;
            self.rules = rules_of(&self.file.current(), self.user.as_deref(), &self.client_id);
        }
        let hits = self.rules.iter().filter(|it| matches(&it.filter, topic));
        for Rule { allows, .. } in hits {
            let allowed = match action {
                Action::Read => allows.read,
                Action::Write => allows.write,
            };
            if allowed || allows.denies() {
                return allowed;
            }
        }
        false
    }
}

fn rules_of(acl: &Acl, user: Option<&str>, client_id: &str) -> Vec<Rule> {
    let own = match user {
        None => Some(&acl.anonymous),
        Some(user) => acl.users.get(user),
    };
    let own = own.map_or(&[][..], |list| &list.0);
    let wild = |name: &str| name.contains(['+', '#']);
    // Such a name would match more than its place, and be matched by nothing that is meant for it.
    let patterns = match wild(client_id) || user.is_some_and(wild) {
        true => &[][..],
        false => &acl.patterns.0,
    };
    let filled = patterns.iter().filter_map(|rule| {
        let filter = fill(&rule.filter, user, client_id)?.into();
        let allows = rule.allows;
        Some(Rule { filter, allows })
    });
    own.iter().cloned().chain(filled).collect()
}

/// A pattern with the names in it; `None`: it asks for a user name, and there is none. A `%c` in a
/// user name stays as it is.
fn fill(pattern: &str, user: Option<&str>, client_id: &str) -> Option<String> {
    let mut filled = String::with_capacity(pattern.len() + client_id.len());
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('%') {
        filled.push_str(before);
        let mut letters = after.chars();
        match letters.next() {
            Some('c') => filled.push_str(client_id),
            Some('u') => filled.push_str(user?),
            _ => {
                filled.push('%');
                rest = after;
                continue;
            }
        }
        rest = letters.as_str();
    }
    filled.push_str(rest);
    Some(filled)
}

/// Whether a topic name matches a filter (section 4.7).
fn matches(filter: &str, topic: &[u8]) -> bool {
    if filter.starts_with('$') != topic.starts_with(b"$") {
        return false;
    }
    let mut levels = topic.split(|byte| *byte == b'/');
    let mut wanted = filter.as_bytes().split(|byte| *byte == b'/');
    loop {
        match (wanted.next(), levels.next()) {
            (Some(b"#"), _) | (None, None) => return true,
            (Some(b"+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# a plant
topic read site/#
topic deny site/secret

user pump
topic write pumps/1/#
topic readwrite both ways
topic deny pumps/1/firmware
topic pumps/any
user valve
topic valves/+
user pump
topic read extra
pattern write devices/%c/up
pattern read users/%u/#
pattern deny devices/%c/up/raw
";

    fn rights(text: &str, user: Option<&str>, client_id: &str) -> Rights {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acl");
        std::fs::write(&path, text).unwrap();
        let file = Arc::new(Watched::open(path).unwrap());
        Rights::of(file, user.map(Into::into), client_id.into())
    }

    impl Rights {
        fn may(&mut self, action: Action, topic: &str) -> bool {
            self.allow(action, topic.as_bytes())
        }
    }

    fn table(rights: &mut Rights, rows: &[(&str, bool, bool)]) {
        for (topic, read, write) in rows {
            assert_eq!(rights.may(Action::Read, topic), *read, "read {topic}");
            assert_eq!(rights.may(Action::Write, topic), *write, "write {topic}");
        }
    }

    #[test]
    fn each_client_has_its_own_lines_and_all_have_the_patterns() {
        let rows = [
            ("site", true, false),
            ("site/a/b", true, false),
            ("site/secret", false, false),
            ("pumps/1/x", false, false),
            ("devices/c1/up", false, true),
            ("devices/c2/up", false, false),
            ("users//x", false, false),
            ("$SYS/x", false, false),
        ];
        table(&mut rights(FILE, None, "c1"), &rows);
        let rows = [
            ("site/a", false, false),
            ("pumps/1/x", false, true),
            ("pumps/1/firmware", false, false),
            ("pumps/any", true, true),
            ("both ways", true, true),
            ("extra", true, false),
            ("valves/1", false, false),
            ("devices/c9/up", false, true),
            ("devices/c9/up/raw", false, false),
            ("users/pump/a", true, false),
            ("users/valve/a", false, false),
        ];
        table(&mut rights(FILE, Some("pump"), "c9"), &rows);
        // Not in the file: the patterns hold.
        let rows = [("users/nobody/a", true, false), ("pumps/any", false, false)];
        table(&mut rights(FILE, Some("nobody"), "c"), &rows);
    }

    #[test]
    fn names_with_wildcards_fill_no_pattern() {
        for (user, client_id) in [
            (None, "+"),
            (None, "a/#"),
            (Some("#"), "c"),
            (Some("pump+"), "c"),
        ] {
            let mut rights = rights(FILE, user, client_id);
            for topic in ["devices/c/up", "devices/+/up", "users/a/b", "users/#"] {
                assert!(!rights.may(Action::Write, topic), "{client_id} {topic}");
                assert!(!rights.may(Action::Read, topic), "{client_id} {topic}");
            }
        }
        let mut odd = rights("pattern a/%%c/%x/%", None, "c");
        assert!(odd.may(Action::Read, "a/%c/%x/%"));
        // What a name brings is not filled in again.
        let mut odd = rights("pattern %u/%c", Some("%c"), "id");
        assert!(odd.may(Action::Read, "%c/id"));
    }

    #[test]
    fn dollar_topics_need_a_dollar_in_the_rule() {
        let mut rights = rights("topic #\ntopic read $SYS/#", None, "c");
        table(
            &mut rights,
            &[("a", true, true), ("", true, true), ("$SYS/a", true, false)],
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, found) in [
            ("", 0, "holds no rule"),
            ("# nothing\n\nuser a\n", 0, "holds no rule"),
            ("topic a\nuser\n", 2, "`user` without a name"),
            ("topic\n", 1, "no topic filter"),
            ("topic a b\n", 1, "unknown access \"a\""),
            ("\n\ntopic read a/#/b\n", 3, "\"a/#/b\" is no topic filter"),
            ("topics a\n", 1, "unknown word \"topics\""),
            ("pattern write x+/%c\n", 1, "\"x+/%c\" is no topic filter"),
        ] {
            let wrong = Acl::read(text).unwrap_err();
            assert_eq!(wrong.line, line, "{text}");
            assert!(wrong.found.contains(found), "{text}: {}", wrong.found);
        }
        // A filter of that name, to mosquitto too.
        assert!(Acl::read("topic read \n").is_ok());
    }

    #[test]
    fn a_changed_file_holds_at_once_and_a_bad_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acl");
        std::fs::write(&path, "topic read a").unwrap();
        let file = Arc::new(Watched::<Acl>::open(path.clone()).unwrap());
        let mut rights = Rights::of(Arc::clone(&file), None, "c".into());
        assert!(rights.may(Action::Read, "a") && !rights.may(Action::Write, "a"));
        for bad in ["", "nonsense", "\u{0}"] {
            std::fs::write(&path, bad).unwrap();
            assert!(!file.refresh(false), "{bad:?}");
            assert!(rights.may(Action::Read, "a"));
        }
        assert!(!file.refresh(false), "unchanged");
        std::fs::write(&path, "topic write a").unwrap();
        assert!(file.refresh(false));
        assert!(!rights.may(Action::Read, "a") && rights.may(Action::Write, "a"));
        assert!(file.refresh(true), "it was asked for");
        std::fs::remove_file(&path).unwrap();
        assert!(!file.refresh(true));
        assert!(rights.may(Action::Write, "a"));
    }
}
