//! First stage: what was typed, held against the keys. Every value here has its key's type and
//! range.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use super::keys::{self, Key, Shape, Table};
use super::problem::{Place, Problem};
use super::tree::{self, Item, Node};
use super::{ListenAddress, suggest, value};
use crate::board::Board;
use crate::secret::Source;

/// A value of the type its key asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Path(PathBuf),
    Address(SocketAddr),
    ListenAddress(ListenAddress),
    Flag(bool),
    Integer(i64),
    List(Vec<String>),
    Map(Vec<(String, String)>),
    Secret(Source),
}

/// All that was typed and is right by itself.
#[derive(Debug, Default)]
pub(super) struct Raw {
    /// By shown path: `proxy.route[0].topic`.
    values: BTreeMap<String, Value>,
    /// Places of all keys and tables that were typed, right or wrong.
    places: BTreeMap<String, Place>,
    /// Keys whose values were wrong: a problem is reported for each.
    refused: BTreeSet<String>,
    /// What the board's profile says, by path; never of a repeated table.
    below: BTreeMap<String, Value>,
    /// How often each repeated table stands there.
    counts: BTreeMap<String, usize>,
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
}

impl Raw {
    /// Holds a tree against `tables`.
    pub(super) fn new(tables: &[Table], root: &Item) -> Self {
        let mut raw = Self::default();
        if let Node::Table(entries) = &root.node {
            raw.table(tables, "", entries);
        }
        raw
    }

    /// Takes the board's values for what was not typed. A profile's mistakes are a test's to find.
    pub(super) fn put_below(&mut self, tables: &[Table], board: &Board) {
        self.below = Self::of_board(tables, board).values;
    }

    /// A board's profile held against `tables`.
    pub(super) fn of_board(tables: &[Table], board: &Board) -> Self {
        let (root, problems) = tree::from_toml(board.text);
        let entries = match root.node {
            Node::Table(entries) => entries,
            _ => Vec::new(),
        };
        let config = entries.iter().find(|(name, _)| name == "config");
        let mut raw = config.map_or_else(Self::default, |(_, item)| Self::new(tables, item));
        raw.problems.extend(problems);
        raw
    }

    /// What holds for a key that was not typed, as far as the board has a say in it.
    pub(super) fn below(&self, path: &str) -> Option<&Value> {
        self.below.get(path)
    }

    /// What was typed for the key at that shown path, if it was and is right.
    pub(super) fn value(&self, path: &str) -> Option<&Value> {
        self.values.get(path)
    }

    /// Where a key or table was typed; a key that was left out stands where its table does.
    pub(super) fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return place.clone();
            }
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None => return Place::File,
            }
        }
    }

    /// Whether a key or table was typed, right or wrong.
    pub(super) fn has(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// Whether what was typed for a key, or for any key below a table, was wrong.
    pub(super) fn is_refused(&self, path: &str) -> bool {
        self.refused
            .iter()
            .any(|refused| refused.strip_prefix(path).is_some_and(is_below))
    }

    /// How often a repeated table was typed.
    pub(super) fn count(&self, path: &str) -> usize {
        self.counts.get(path).copied().unwrap_or(0)
    }

    fn table(&mut self, tables: &[Table], shown: &str, entries: &[(String, Item)]) {
        let path = keys::without_indexes(shown);
        for (name, item) in entries {
            let below = join(&path, name);
            let shown = join(shown, name);
            if let Some(table) = keys::table(tables, &below) {
                self.places.insert(shown.clone(), item.place.clone());
                self.child(tables, table, &shown, item);
            } else if let Some(key) = keys::key(tables, &below) {
                self.places.insert(shown.clone(), item.place.clone());
                self.key(key, shown, item);
            } else {
                let right = suggest::for_unknown(tables, &path, name, &item.node);
                self.problem(&shown, item, "unknown key".to_owned(), right);
            }
        }
    }

    fn child(&mut self, tables: &[Table], table: &Table, shown: &str, item: &Item) {
        match (&item.node, table.shape) {
            (Node::Table(entries), Shape::Always | Shape::Optional(_)) => {
                self.table(tables, shown, entries);
            }
            (Node::List(items), Shape::Repeated) => {
                self.counts.insert(shown.to_owned(), items.len());
                for (i, item) in items.iter().enumerate() {
                    let shown = format!("{shown}[{i}]");
                    self.places.insert(shown.clone(), item.place.clone());
                    match &item.node {
                        Node::Table(entries) => self.table(tables, &shown, entries),
                        node => self.wrong_shape(table, &shown, item, node),
                    }
                }
            }
            (node, _) => self.wrong_shape(table, shown, item, node),
        }
    }

    fn wrong_shape(&mut self, table: &Table, shown: &str, item: &Item, node: &Node) {
        let right = match table.shape {
            Shape::Repeated => format!("write [[{}]]", table.path),
            _ => format!("write [{}]", table.path),
        };
        self.refused.insert(shown.to_owned());
        self.problem(shown, item, format!("found {}", node.shown()), right);
    }

    fn key(&mut self, key: &Key, shown: String, item: &Item) {
        match value::read(key.kind, &item.node) {
            Ok(value) => {
                self.values.insert(shown, value);
            }
            Err(value::Wrong { found, right }) => {
                let right = match item.place {
                    Place::Variable(_) => right.replace(" in quotes", ""),
                    _ => right,
                };
                self.problem(&shown, item, format!("found {found}"), right);
                self.refused.insert(shown);
            }
        }
    }

    fn problem(&mut self, shown: &str, item: &Item, found: String, right: String) {
        let problem = Problem::new(item.place.clone(), shown, found, right);
        self.problems.push(problem);
    }
}

fn is_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
