//! The licences of all dependencies, by the list of `.deny.toml` and without `cargo deny`.

use std::process::Command;

use serde_json::Value;

/// Whether an SPDX expression can be met with what is allowed. `/` is an old `OR`.
fn met(expression: &str, allowed: &[&str]) -> bool {
    let all = |way: &str| way.split(" AND ").all(|one| allowed.contains(&one.trim()));
    let Some((before, inner)) = expression.rsplit_once('(') else {
        return expression.replace('/', " OR ").split(" OR ").any(all);
    };
    let (inner, behind) = inner.split_once(')').unwrap();
    let verdict = if met(inner, allowed) { allowed[0] } else { "" };
    met(&format!("{before}{verdict}{behind}"), allowed)
}

#[test]
fn licences_are_those_that_deny_toml_allows() {
    let rules: toml::Table = include_str!("../../.deny.toml").parse().unwrap();
    let texts = |table: &str, key: &str| rules[table][key].as_array().unwrap().clone();
    let licences = texts("licenses", "allow");
    let allowed: Vec<&str> = licences.iter().map(|one| one.as_str().unwrap()).collect();
    assert!(met("X/MIT", &allowed) && met("(X OR MIT) AND Zlib", &allowed));
    assert!(!met("MIT AND X", &allowed) && !met("(X)", &allowed) && !met("", &allowed));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--format-version", "1"]);
    for target in texts("graph", "targets") {
        cargo.args(["--filter-platform", target.as_str().unwrap()]);
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let metadata: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let exceptions = texts("licenses", "exceptions");
    let wrong = packages.filter(|package| {
        let own = exceptions
            .iter()
            .filter(|it| it["crate"].as_str() == package["name"].as_str());
        let own = own.flat_map(|it| it["allow"].as_array().unwrap());
        let mut allowed = allowed.clone();
        allowed.extend(own.map(|one| one.as_str().unwrap()));
        !met(package["license"].as_str().unwrap_or(""), &allowed)
    });
    let wrong: Vec<_> = wrong.map(|package| &package["id"]).collect();
    assert!(wrong.is_empty(), "not allowed by .deny.toml: {wrong:#?}");
}
