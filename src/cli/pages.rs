//! Man pages and shell completions of `cross/debian`, written from the command line's definition; a
//! test keeps the files equal (`UPDATE=1 cargo test` rewrites them).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

type Files = BTreeMap<String, String>;

fn files(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), text)
    };
    entries.map(read).collect()
}

fn keep_equal(folder: &str, written: &Path) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("cross/debian")
        .join(folder);
    let wanted = files(written);
    if std::env::var_os("UPDATE").is_some() {
        let _gone = fs::remove_dir_all(&kept);
        fs::create_dir_all(&kept).unwrap();
        for (name, text) in &wanted {
            fs::write(kept.join(name), text).unwrap();
        }
    }
    let same = files(&kept) == wanted;
    assert!(same, "{} is old: run UPDATE=1 cargo test", kept.display());
}

#[test]
fn the_pages_of_the_manual_are_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, folder.path()).unwrap();
    keep_equal("man", folder.path());
}

#[test]
fn the_pages_of_completions_are_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Cli::command(), "tidegate", folder.path()).unwrap();
    }
    keep_equal("completions", folder.path());
}
