//! Recorded sequences, one JSON object a line, and which of them the codecs judge as a broker does.
//!
//! A payload is written in words: `'text'`, `i` a byte, `H k m s` two bytes, `L` four, `r v` a
//! variable byte integer, each with its decimal number; all else is hexadecimal.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::codecs::{Codec, Version, frame};

/// What a client sends, and whether a broker closes the connection for it.
pub struct Sequence {
    /// The version that it is written in.
    pub version: Version,
    /// The client's writes.
    pub sends: Vec<Vec<u8>>,
    closes: bool,
}

/// Those without SUBSCRIBE and UNSUBSCRIBE.
pub fn read(file: &Path) -> anyhow::Result<Vec<Sequence>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut sequences = Vec::new();
    for line in text.lines() {
        sequences.extend(sequence(line).with_context(|| format!("sequence {line}"))?);
    }
    Ok(sequences)
}

fn sequence(line: &str) -> anyhow::Result<Option<Sequence>> {
    let json: Value = serde_json::from_str(line)?;
    let version = match json.get("ver").and_then(Value::as_u64) {
        Some(5) => Version::V5,
        _ => Version::V3,
    };
    let closes = json.get("expect_disconnect").and_then(Value::as_bool);
    let messages = json.get("msgs").and_then(Value::as_array);
    let mut sends = Vec::new();
    for message in messages.context("no msgs")? {
        let word = |key| message.get(key).and_then(Value::as_str);
        match word("type").context("a message without type")? {
            "send" => sends.push(bytes(word("payload").context("a send without payload")?)?),
            "recv" => {}
            _ => return Ok(None), // the tool subscribes or publishes by another connection
        }
    }
    let subscribes = |send: &Vec<u8>| matches!(send.first(), Some(0x82 | 0xa2));
    if sends.iter().any(subscribes) {
        return Ok(None);
    }
    Ok(Some(Sequence {
        version,
        sends,
        closes: closes.context("no expect_disconnect")?,
    }))
}

fn bytes(payload: &str) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = payload.trim_start();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('\'') {
            let (text, behind) = quoted.split_once('\'').unwrap_or((quoted, ""));
            out.extend_from_slice(text.as_bytes());
            rest = behind.trim_start();
            continue;
        }
        let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        put(&mut out, word).with_context(|| format!("word {word}"))?;
        rest = behind.trim_start();
    }
    Ok(out)
}

fn put(out: &mut Vec<u8>, word: &str) -> anyhow::Result<()> {
    let (kind, number) = word.split_at_checked(1).context("not ASCII")?;
    match kind {
        "i" => out.push(number.parse()?),
        "H" | "k" | "m" | "s" => out.extend(number.parse::<u16>()?.to_be_bytes()),
        "L" => out.extend(number.parse::<u32>()?.to_be_bytes()),
        "r" | "v" => variable(out, number.parse()?),
        _ => {
            for pair in word.as_bytes().chunks(2) {
                let pair = std::str::from_utf8(pair)?;
                if pair.len() < 2 {
                    bail!("half a byte");
                }
                out.push(u8::from_str_radix(pair, 16)?);
            }
        }
    }
    Ok(())
}

/// A variable byte integer, of as many bytes as it takes.
pub fn variable(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number % 128).unwrap_or(0);
        number /= 128;
        out.push(low | if number > 0 { 0x80 } else { 0 });
        if number == 0 {
            return;
        }
    }
}

/// Prints how many sequences each codec alone judges as a broker does.
pub fn conformance(sequences: &[Sequence]) {
    let open = sequences.iter().filter(|sequence| !sequence.closes).count();
    let closed = sequences.len() - open;
    println!("sequences: {open} that a broker accepts, {closed} that it refuses");
    for codec in Codec::ALL {
        let (mut accepted, mut refused, mut panics) = (0, 0, 0);
        for sequence in sequences {
            let mut takes_all = true;
            for send in &sequence.sends {
                let whole = frame(send).is_some() || matches!(codec, Codec::RumqttdBare);
                let verdict = codec.accepts(sequence.version, send);
                panics += u32::from(verdict.is_none());
                takes_all &= whole && verdict == Some(true);
            }
            match (sequence.closes, takes_all) {
                (false, true) => accepted += 1,
                (true, false) => refused += 1,
                _ => {}
            }
        }
        println!(
            "{:20} accepts {accepted} of {open}, refuses {refused} of {closed}, {panics} panics",
            codec.name()
        );
    }
}
