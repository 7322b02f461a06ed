//! Overrides from the environment: `TIDEGATE__SPOOL__MAX_BYTES=4GiB` sets `spool.max_bytes`.
//!
//! Lists are comma-separated; tables, and lists of tables, are JSON and replace what the file says
//! of them (`TIDEGATE__PROXY__ROUTE='[{"mqtt": "#", "topic": "all"}]'`). Variables of tables are
//! applied before those of keys. A variable of that prefix that names nothing is an error: it was
//! meant to change something.

use std::ffi::OsString;
use std::sync::Arc;

use super::keys::{self, Kind, Table};
use super::problem::{Place, Problem};
use super::tree::{Item, Node, from_json};
use super::{suggest, units};

/// What all our variables begin with.
pub(super) const PREFIX: &str = "TIDEGATE__";

/// Name of the variable that sets a key or table.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}

/// Puts the variables of our prefix into the tree.
pub(super) fn apply(
    tables: &[Table],
    root: &mut Item,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut found: Vec<(String, Arc<str>, OsString)> = variables
        .filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let path = name.strip_prefix(PREFIX)?.replace("__", ".");
            Some((path.to_ascii_lowercase(), name.into(), value))
        })
        .collect();
    found.sort_by_key(|(path, ..)| (path.matches('.').count(), path.clone()));
    for (path, name, value) in found {
        let place = Place::Variable(name);
        match read(tables, &path, value, &place) {
            Ok(item) => set(root, &path, item),
            Err((found, right)) => problems.push(Problem::new(place, path, found, right)),
        }
    }
    problems
}

fn read(
    tables: &[Table],
    path: &str,
    value: OsString,
    place: &Place,
) -> Result<Item, (String, String)> {
    let kind = keys::key(tables, path).map(|key| key.kind);
    if kind.is_none() && keys::table(tables, path).is_none() {
        return Err(("unknown variable".to_owned(), meant(tables, path)));
    }
    let Ok(text) = value.into_string() else {
        return Err((
            "bytes that are not UTF-8".to_owned(),
            "write UTF-8".to_owned(),
        ));
    };
    let node = match kind {
        None | Some(Kind::Map) => return json(&text, place),
        Some(Kind::Secret) if text.starts_with('{') => return json(&text, place),
        Some(kind) => scalar(kind, text, place),
    };
    Ok(Item {
        place: place.clone(),
        node,
    })
}

/// The text as the key's kind takes it; what does not fit stays text and is refused with the
/// others.
fn scalar(kind: Kind, text: String, place: &Place) -> Node {
    match kind {
        Kind::Integer { .. } | Kind::Millis { .. } => {
            units::integer(&text).map_or(Node::Text(text), Node::Integer)
        }
        Kind::Flag => match text.as_str() {
            "true" => Node::Flag(true),
            "false" => Node::Flag(false),
            _ => Node::Text(text),
        },
        Kind::Servers => {
            let item = |text: &str| Item {
                place: place.clone(),
                node: Node::Text(text.trim().to_owned()),
            };
            let texts = text.split(',').filter(|text| !text.trim().is_empty());
            Node::List(texts.map(item).collect())
        }
        _ => Node::Text(text),
    }
}

fn json(text: &str, place: &Place) -> Result<Item, (String, String)> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(from_json(value, place)),
        Err(error) => Err((format!("not JSON: {error}"), "write it as JSON".to_owned())),
    }
}

fn meant(tables: &[Table], path: &str) -> String {
    let keys = tables.iter().flat_map(|table| {
        let repeated = table.shape == keys::Shape::Repeated;
        let keys = if repeated { &[][..] } else { table.keys };
        keys.iter()
            .map(move |key| format!("{}.{}", table.path, key.name))
    });
    let paths: Vec<_> = keys
        .chain(tables.iter().map(|t| t.path.to_owned()))
        .collect();
    let paths: Vec<_> = paths.iter().map(String::as_str).collect();
    if let Some(near) = suggest::nearest(&paths, path) {
        return format!("did you mean {}?", variable(near));
    }
    let repeated = tables
        .iter()
        .filter(|table| table.shape == keys::Shape::Repeated)
        .find(|table| path.starts_with(table.path));
    match repeated {
        Some(table) => format!(
            "write all [[{}]] as JSON into {}",
            table.path,
            variable(table.path)
        ),
        None => "docs/config.md lists the keys".to_owned(),
    }
}

/// Sets the item at `path`, with the tables on the way made where they are missing.
fn set(root: &mut Item, path: &str, item: Item) {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    if !matches!(root.node, Node::Table(_)) {
        root.node = Node::Table(Vec::new());
    }
    let Node::Table(entries) = &mut root.node else {
        return;
    };
    let at = entries.iter().position(|(entry, _)| entry == name);
    let mut below = match at {
        Some(at) => entries.swap_remove(at).1,
        None => Item {
            place: item.place.clone(),
            node: Node::Table(Vec::new()),
        },
    };
    match rest {
        Some(rest) => set(&mut below, rest, item),
        None => below = item,
    }
    entries.push((name.to_owned(), below));
}
