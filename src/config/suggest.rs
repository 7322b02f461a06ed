//! "Did you mean": what an unknown key was probably meant to be.

use super::keys::{self, Kind, Table};
use super::tree::Node;
use super::units;

/// What would be right instead of the unknown key `name` of table `path` (without indexes; empty:
/// the top).
pub(super) fn for_unknown(tables: &[Table], path: &str, name: &str, node: &Node) -> String {
    if let Some((key, kind)) = other_unit(tables, path, name) {
        return with_unit(key, kind, node);
    }
    let names = names(tables, path);
    if let Some(near) = nearest(&names, name) {
        return format!("did you mean `{near}`?");
    }
    let elsewhere = tables
        .iter()
        .find(|table| table.keys.iter().any(|key| key.name == name));
    if let Some(table) = elsewhere {
        return format!("did you mean the key of that name in [{}]?", table.path);
    }
    for table in tables {
        if let Some((key, _)) = other_unit(tables, table.path, name) {
            return format!("did you mean `{key}` in [{}]?", table.path);
        }
    }
    format!("known here: {}", names.join(", "))
}

/// All names that may stand in a table.
fn names<'t>(tables: &'t [Table], path: &str) -> Vec<&'t str> {
    let keys = keys::table(tables, path).map_or(&[][..], |table| table.keys);
    keys.iter()
        .map(|key| key.name)
        .chain(keys::children(tables, path))
        .collect()
}

/// A key of the same name but for its unit: `ttl`, `ttl_s` → `ttl_ms`.
fn other_unit<'t>(tables: &'t [Table], path: &str, name: &str) -> Option<(&'t str, Kind)> {
    const UNITS: [&str; 14] = [
        "_ms", "_s", "_sec", "_secs", "_seconds", "_minutes", "_hours", "_days", "_bytes", "_kb",
        "_mb", "_gb", "_mib", "_gib",
    ];
    let stem = UNITS
        .iter()
        .find_map(|unit| name.strip_suffix(unit))
        .unwrap_or(name);
    let of = |key: &&keys::Key| {
        ["_ms", "_bytes"]
            .iter()
            .any(|unit| key.name.strip_suffix(unit) == Some(stem))
    };
    let key = keys::table(tables, path)?.keys.iter().find(of)?;
    Some((key.name, key.kind))
}

fn with_unit(key: &str, kind: Kind, node: &Node) -> String {
    match (kind, node) {
        (Kind::Millis { .. }, Node::Text(text)) => match units::millis_meant(text) {
            Some(ms) => {
                let ms = units::show_integer(ms);
                format!("did you mean `{key} = {ms}`, in milliseconds?")
            }
            None => format!("did you mean `{key}`, in milliseconds?"),
        },
        (Kind::Millis { .. }, _) => format!("did you mean `{key}`, in milliseconds?"),
        _ => format!("did you mean `{key}`, in bytes (`\"256MiB\"`)?"),
    }
}

/// The nearest of `names`, if it is near enough to be a slip of the keyboard.
pub(super) fn nearest<'n>(names: &[&'n str], name: &str) -> Option<&'n str> {
    let distance = |near: &str| strsim::damerau_levenshtein(near, name);
    let near = names.iter().min_by_key(|near| distance(near))?;
    (distance(near) <= (name.chars().count() / 3).clamp(1, 4)).then_some(*near)
}

#[cfg(test)]
mod tests {
    use super::super::keys::TABLES;
    use super::*;

    #[test]
    fn slips_units_and_strays() {
        let told = |path, name, node: Node| for_unknown(TABLES, path, name, &node);
        let five = Node::Text("5s".to_owned());
        assert_eq!(
            told("proxy.route", "ttl", five.clone()),
            "did you mean `ttl_ms = 5_000`, in milliseconds?"
        );
        assert_eq!(
            told("proxy.route", "ttl_s", Node::Integer(5)),
            "did you mean `ttl_ms`, in milliseconds?"
        );
        assert!(told("spool", "max_mb", Node::Integer(5)).contains("`max_bytes`"));
        assert_eq!(
            told("spool", "on_ful", five.clone()),
            "did you mean `on_full`?"
        );
        assert_eq!(told("", "kafak", five.clone()), "did you mean `kafka`?");
        assert!(told("gateway", "default_topic", five.clone()).contains("[proxy]"));
        assert!(told("spool", "ttl", five.clone()).contains("`ttl_ms` in [proxy.route]"));
        assert!(told("api", "zzz", five).contains("known here: listen"));
    }
}
