//! The configuration as typed: a tree of values, each with its place. Made from TOML and from JSON.

use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

/// A value and where it was typed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub place: Place,
    pub node: Node,
}

/// What was typed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    Integer(i64),
    Flag(bool),
    List(Vec<Item>),
    Table(Vec<(String, Item)>),
    /// What no key takes (a float, a date, null), as shown in errors.
    Other(String),
}

impl Node {
    /// As shown in errors; long text is cut.
    pub(super) fn shown(&self) -> String {
        const SHOWN_CHARS_MAX: usize = 60;
        match self {
            Self::Text(text) if text.chars().count() > SHOWN_CHARS_MAX => {
                let start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                format!("{start:?}…")
            }
            Self::Text(text) => format!("{text:?}"),
            Self::Integer(n) => super::units::show_integer(*n),
            Self::Flag(flag) => flag.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Other(shown) => shown.clone(),
        }
    }
}

/// Parses a TOML file as far as it goes. Only the message and the line of a syntax error are told:
/// the line itself may hold a secret.
pub(super) fn from_toml(text: &str) -> (Item, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let problems = errors
        .iter()
        .map(|error| {
            let place = error
                .span()
                .map_or(Place::File, |span| line(text, span.start));
            Problem::new(place, "", "not TOML", error.message())
        })
        .collect();
    let root = Item {
        place: Place::File,
        node: toml_table(text, table.get_ref()),
    };
    (root, problems)
}

fn line(text: &str, offset: usize) -> Place {
    let before = text.as_bytes().iter().take(offset);
    Place::Line(1 + before.filter(|byte| **byte == b'\n').count())
}

fn toml_table(text: &str, table: &DeTable<'_>) -> Node {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let entry = |(name, value): &(&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let place = line(text, name.span().start);
        let node = toml_node(text, value.get_ref());
        (
            std::string::ToString::to_string(name.get_ref()),
            Item { place, node },
        )
    };
    Node::Table(entries.iter().map(entry).collect())
}

fn toml_node(text: &str, value: &DeValue<'_>) -> Node {
    match value {
        DeValue::String(string) => Node::Text(string.to_string()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| Node::Other(integer.to_string()), Node::Integer),
        DeValue::Boolean(flag) => Node::Flag(*flag),
        DeValue::Float(float) => Node::Other(float.to_string()),
        DeValue::Datetime(date) => Node::Other(date.to_string()),
        DeValue::Table(table) => toml_table(text, table),
        DeValue::Array(array) => Node::List(
            array
                .iter()
                .map(|item| Item {
                    place: line(text, item.span().start),
                    node: toml_node(text, item.get_ref()),
                })
                .collect(),
        ),
    }
}

/// A JSON value as the same tree, all of it at `place`.
pub(super) fn from_json(value: serde_json::Value, place: &Place) -> Item {
    use serde_json::Value;
    let node = match value {
        Value::String(string) => Node::Text(string),
        Value::Bool(flag) => Node::Flag(flag),
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| Node::Other(number.to_string()), Node::Integer),
        Value::Null => Node::Other("null".to_owned()),
        Value::Array(list) => Node::List(list.into_iter().map(|v| from_json(v, place)).collect()),
        Value::Object(map) => Node::Table(
            map.into_iter()
                .map(|(name, v)| (name, from_json(v, place)))
                .collect(),
        ),
    };
    Item {
        place: place.clone(),
        node,
    }
}

/// One TOML value, as a default is written in the table of keys.
pub(super) fn from_literal(literal: &str) -> Option<Node> {
    let value = DeValue::parse(literal).ok()?;
    Some(toml_node(literal, value.get_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_keys() {
        let (root, problems) = from_toml("[a]\nx = 1_000\n\n[[b]]\ny = [\n 1,\n 2]\n[[b]]\n");
        assert!(problems.is_empty());
        let Node::Table(top) = &root.node else {
            panic!()
        };
        assert_eq!(top[0].1.place, Place::Line(1));
        let Node::Table(a) = &top[0].1.node else {
            panic!()
        };
        assert_eq!(
            (&a[0].1.place, &a[0].1.node),
            (&Place::Line(2), &Node::Integer(1_000))
        );
        let Node::List(b) = &top[1].1.node else {
            panic!()
        };
        assert_eq!(b[1].place, Place::Line(8));
    }

    #[test]
    fn syntax_errors_tell_their_lines_and_not_the_text() {
        let (_, problems) = from_toml("a = 1\npassword = hunter2\nb = \"open\nc = 3\n");
        assert!(problems.len() >= 2, "{problems:?}");
        assert_eq!(problems[0].place, Place::Line(2));
        assert!(!format!("{problems:?}").contains("hunter2"));
    }
}
