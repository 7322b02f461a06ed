//! The shape of the tree, held by a tool: which way imports point, how long files and functions
//! are.

use std::fs;
use std::path::{Path, PathBuf};

/// The top modules from the lowest up: each may import what stands in a layer below its own.
/// `main.rs` and `lib.rs` only join them.
const LAYERS: &[&[&str]] = &[
    &[
        "record",
        "metrics",
        "log",
        "backoff",
        "secret",
        "clock",
        "notify",
        "board",
        "mqtt_topic",
    ],
    &["tls"],
    &["access"],
    &["kafka"],
    &["config"],
    &["spool"],
    &["proxy", "uplink"],
    &["api"],
    &["app"],
    &["cli"],
];
/// What a layer would allow and its job does not: the Kafka client knows no figures of ours.
const NEVER: &[(&str, &str)] = &[("kafka", "metrics")];

const FILE_LINES_WARN: usize = 350;
const FILE_LINES_MAX: usize = 600;
const FN_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

struct Source {
    /// Relative to the root: `src/config/mod.rs`.
    path: PathBuf,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.into(),
            text: text.to_owned(),
        }
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{}", self.path.display(), line + 1)
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.push(Source {
                    path: path.strip_prefix(root).unwrap().to_owned(),
                    text,
                });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!sources.is_empty());
    sources
}

/// All findings over all sources must be none.
fn hold(sources: &[Source], find: impl Fn(&Source) -> Vec<String>) {
    let found: Vec<String> = sources.iter().flat_map(find).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The top modules that paths in a source name: `crate::a::b`, `crate::{a::b, c}`, and as many
/// `super::` as lead to the top.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code: Vec<&str> = source
        .text
        .lines()
        .map(|line| if is_comment(line) { "" } else { line })
        .collect();
    let code = code.join("\n");
    let to_top = "super::".repeat(depth(&source.path));
    let paths = |start| code.match_indices(start);
    let mut found = Vec::new();
    for (at, start) in paths("crate::").chain(paths(to_top.as_str())) {
        let line = code[..at].matches('\n').count();
        let rest = &code[at + start.len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => first_names(group),
            None => vec![name(rest)],
        };
        found.extend(
            names
                .into_iter()
                .filter(|n| !n.is_empty())
                .map(|n| (line, n)),
        );
    }
    found
}

/// How many modules lie between a file and the top: 1 in `src/a.rs` and `src/a/mod.rs`, 2 in
/// `src/a/b.rs`. A test module inside a file has one `super` more, and is not looked at closely.
fn depth(path: &Path) -> usize {
    let parts = path.strip_prefix("src").unwrap().iter().count();
    parts - usize::from(path.ends_with("mod.rs"))
}

fn name(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

/// The first name of each item of a group whose opening brace is behind us.
fn first_names(group: &str) -> Vec<String> {
    let (mut names, mut depth, mut item) = (Vec::new(), 1, String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            names.push(name(item.trim_start()));
            item.clear();
        } else {
            item.push(c);
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// `src/config/keys/mod.rs` and `src/config.rs` → `config`.
fn top(path: &Path) -> String {
    let below = path.strip_prefix("src").unwrap();
    Path::new(below.iter().next().unwrap())
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

fn wrong_arrows(source: &Source) -> Vec<String> {
    let top = top(&source.path);
    if top == "main" || top == "lib" {
        return Vec::new();
    }
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let Some(own) = layer(&top) else {
        return vec![format!(
            "{}: give `{top}` its layer in tidy.rs",
            source.at(0)
        )];
    };
    let is_wrong = |name: &str| {
        name != top
            && (layer(name).is_some_and(|other| other >= own)
                || NEVER.contains(&(top.as_str(), name)))
    };
    imports(source)
        .into_iter()
        .filter(|(_, name)| is_wrong(name))
        .map(|(line, name)| format!("{}: {top} imports {name}", source.at(line)))
        .collect()
}

/// Lines before the test module, if it is in the file.
fn product_lines(source: &Source) -> usize {
    let lines: Vec<&str> = source.text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with("mod tests {"));
    tests.unwrap_or(lines.len())
}

fn is_test(source: &Source) -> bool {
    source
        .path
        .iter()
        .any(|part| part == "tests" || part == "tests.rs")
}

fn long_files(source: &Source) -> Vec<String> {
    let lines = product_lines(source);
    if is_test(source) || source.text.contains("\n// tidy: table\n") {
        return Vec::new();
    }
    if (FILE_LINES_WARN + 1..=FILE_LINES_MAX).contains(&lines) {
        println!("warning: {}: {lines} lines", source.path.display());
    }
    let long = lines > FILE_LINES_MAX;
    long.then(|| format!("{}: {lines} product lines", source.path.display()))
        .into_iter()
        .collect()
}

/// Functions by the shape that rustfmt gives them: the closing brace stands under the signature's
/// first letter.
fn long_functions(source: &Source) -> Vec<String> {
    const STARTS: [&str; 6] = [
        "fn ",
        "pub",
        "async fn ",
        "const fn ",
        "unsafe fn ",
        "extern ",
    ];
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let starts = STARTS.iter().any(|start| code.starts_with(start));
        if !starts || !(code.starts_with("fn ") || code.contains(" fn ")) {
            continue;
        }
        let opens = |line: &&str| line.ends_with(['{', ';', '}']);
        let open = i + lines[i..].iter().position(opens).unwrap_or(0);
        if !lines[open].ends_with('{') {
            continue;
        }
        let end = format!("{}}}", " ".repeat(line.len() - code.len()));
        let body = lines[open + 1..].iter().take_while(|line| **line != end);
        let length = body
            .filter(|line| !line.trim().is_empty() && !is_comment(line))
            .count();
        if length > FN_LINES_MAX {
            found.push(format!("{}: {length} lines", source.at(i)));
        }
    }
    found
}

fn leftovers(source: &Source) -> Vec<String> {
    let words = [["FIX", "ME"].concat(), ["TO", "DO"].concat()];
    let is_left = |line: &str| {
        let comment = line.split_once("//").map_or("", |(_, comment)| comment);
        words.iter().any(|word| comment.contains(word.as_str()))
    };
    let lines = source
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| is_left(line));
    lines
        .map(|(i, line)| format!("{}: {}", source.at(i), line.trim()))
        .collect()
}

/// Rows of Markdown tables cannot be broken and are let through.
fn wide_lines(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim_start().starts_with("//! |"))
        .map(|(i, line)| (i, line.chars().count()))
        .filter(|(_, columns)| *columns > COLUMNS_MAX)
        .map(|(i, columns)| format!("{}: {columns} columns", source.at(i)))
        .collect()
}

#[test]
fn imports_point_one_way() {
    hold(&sources(&["src"]), wrong_arrows);
}

#[test]
fn files_are_short() {
    hold(&sources(&["src"]), long_files);
}

#[test]
fn functions_are_short() {
    hold(
        &sources(&["src", "tests", "benches", "fuzz"]),
        long_functions,
    );
}

#[test]
fn nothing_is_left_for_later() {
    hold(&sources(&["src", "tests", "benches", "fuzz"]), leftovers);
}

#[test]
fn lines_fit_the_screen() {
    hold(&sources(&["src", "tests", "benches", "fuzz"]), wide_lines);
}

#[test]
fn every_file_says_what_it_is_for() {
    hold(&sources(&["src", "tests", "benches", "fuzz"]), |source| {
        let opens = source.text.starts_with("//! ");
        (!opens)
            .then(|| format!("{}: no //! at the top", source.path.display()))
            .into_iter()
            .collect()
    });
}

/// The tool itself: it must see what it is there to see.
#[test]
fn planted_faults_are_found() {
    let text = "//! A\nuse crate::{\n    kafka::{a, app::b}, cli,\n};\n\
                // crate::api\nfn f() { crate::app::g(); }\n";
    let found = wrong_arrows(&Source::new("src/spool/x.rs", text));
    assert_eq!(
        found,
        [
            "src/spool/x.rs:2: spool imports cli",
            "src/spool/x.rs:6: spool imports app"
        ]
    );
    assert!(
        wrong_arrows(&Source::new("src/kafka.rs", "use crate::config::A;"))[0].contains("config")
    );
    assert!(wrong_arrows(&Source::new("src/new/mod.rs", "x"))[0].contains("layer"));
    let text = "use super::super::uplink::A;\nuse super::super::{proxy::B, record};\n";
    let found = wrong_arrows(&Source::new("src/spool/x.rs", text));
    assert_eq!(
        found,
        [
            "src/spool/x.rs:1: spool imports uplink",
            "src/spool/x.rs:2: spool imports proxy"
        ]
    );
    let function = format!(
        "    pub fn f(\n    ) {{\n{}    }}\n",
        "        a();\n".repeat(71)
    );
    assert_eq!(
        long_functions(&Source::new("src/a.rs", &function)),
        ["src/a.rs:1: 71 lines"]
    );
    let fits = function.replacen("a();", "// a", 1);
    assert_eq!(long_functions(&Source::new("src/a.rs", &fits)), [""; 0]);
    let long = Source::new("src/a.rs", &"x\n".repeat(601));
    assert_eq!(long_files(&long).len(), 1);
    let tested = format!(
        "{}#[cfg(test)]\nmod tests {{\n{}}}\n",
        "x\n".repeat(9),
        "y\n".repeat(700)
    );
    assert_eq!(product_lines(&Source::new("src/a.rs", &tested)), 9);
    assert_eq!(
        wide_lines(&Source::new("src/a.rs", &"é".repeat(101))).len(),
        1
    );
    let later = format!("x; // {}: y", ["TO", "DO"].concat());
    assert_eq!(leftovers(&Source::new("src/a.rs", &later)).len(), 1);
}
