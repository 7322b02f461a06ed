//! MQTT filters with named captures: `plant/+line/#rest`.
//!
//! `+name` takes one level, `#name` the rest; plain `+` and `#` match and keep nothing. As in MQTT,
//! `#` also matches the level above it (the rest is then empty), and a filter that begins with a
//! wildcard does not match topics that begin with `$`. Matching walks the topic's levels once:
//! there is no backtracking.

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    levels: Vec<Level>,
    /// Names of the captures, in order.
    pub names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Literal(String),
    /// Whether it is captured.
    One(bool),
    /// Whether it is captured.
    Rest(bool),
}

impl Pattern {
    /// Compiles a filter.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(filter: &str) -> Result<Self, (String, String)> {
        if filter.is_empty() {
            return Err(wrong("filter is empty", "#"));
        }
        if filter.contains('\0') {
            return Err(wrong("filter holds U+0000", "a filter without it"));
        }
        let mut levels = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let count = filter.split('/').count();
        for (at, level) in filter.split('/').enumerate() {
            let last = at + 1 == count;
            let (name, rest) = match (level.strip_prefix('+'), level.strip_prefix('#')) {
                (Some(name), _) => (name, false),
                (_, Some(name)) => (name, true),
                _ => {
                    if level.contains(['+', '#']) {
                        let what = format!("wildcard inside level `{level}`");
                        return Err((what, "a wildcard at the start of its level".to_owned()));
                    }
                    levels.push(Level::Literal(level.to_owned()));
                    continue;
                }
            };
            if rest && !last {
                return Err((
                    format!("`#` before the last level in `{filter}`"),
                    "+".to_owned(),
                ));
            }
            if !name.is_empty() {
                check_name(name, &names)?;
                names.push(name.to_owned());
            }
            levels.push(if rest {
                Level::Rest(!name.is_empty())
            } else {
                Level::One(!name.is_empty())
            });
        }
        Ok(Self { levels, names })
    }

    /// What the captures took, in the order of [`Pattern::names`]; `None` when the topic does not
    /// match.
    #[must_use]
    pub fn captures<'t>(&self, topic: &'t str) -> Option<Vec<&'t str>> {
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Literal(_))) {
            return None;
        }
        let mut taken = Vec::new();
        let mut left = Some(topic);
        for level in &self.levels {
            if let Level::Rest(captured) = level {
                if *captured {
                    taken.push(left.unwrap_or_default());
                }
                return Some(taken);
            }
            let here = left?;
            let (head, tail) = match here.split_once('/') {
                Some((head, tail)) => (head, Some(tail)),
                None => (here, None),
            };
            match level {
                Level::Literal(wanted) if wanted != head => return None,
                Level::One(true) => taken.push(head),
                _ => {}
            }
            left = tail;
        }
        left.is_none().then_some(taken)
    }
}

fn wrong(what: &str, right: &str) -> (String, String) {
    (what.to_owned(), right.to_owned())
}

/// Names are letters, digits and `_`, not a digit first, each once; `topic` is the whole MQTT
/// topic.
fn check_name(name: &str, before: &[String]) -> Result<(), (String, String)> {
    let legal = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !legal {
        let right = "letters, digits and _, not a digit first";
        return Err((format!("capture name `{name}`"), right.to_owned()));
    }
    if name == "topic" {
        let what = "capture name `topic` is the whole MQTT topic";
        return Err(wrong(what, "another name"));
    }
    if before.iter().any(|other| other == name) {
        let what = format!("capture name `{name}` stands twice");
        return Err((what, format!("{name}_2")));
    }
    Ok(())
}
