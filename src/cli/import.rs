//! `tidegate import`: another broker's configuration as a `tidegate.toml`.

mod mosquitto;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::{End, out, told};
use mosquitto::Imported;

/// `tidegate import …`
#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// Read a mosquitto.conf; what has no counterpart is told on stderr.
    Mosquitto {
        /// The mosquitto.conf.
        file: PathBuf,
        /// Where to write the tidegate.toml, which must not be there yet; else it goes to stdout.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

pub(super) fn import(asked: &Import) -> End {
    let From::Mosquitto { file, output } = &asked.from;
    told(translate(file, output.as_deref()).map(|()| End::Done))
}

fn translate(file: &Path, output: Option<&Path>) -> anyhow::Result<()> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let Imported { toml, notes } = mosquitto::translate(&text);
    match output {
        None => out::line(toml.trim_end()),
        Some(path) => File::create_new(path)
            .and_then(|mut file| file.write_all(toml.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?,
    }
    for (line, note) in notes {
        out::error(format_args!("{name}, line {line}: {note}"));
    }
    out::error("next: name your brokers in [kafka], then run tidegate check");
    Ok(())
}
