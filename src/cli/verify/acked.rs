//! `--ledger FILE`: messages that senders were told are safe, held against what is in Kafka. Each
//! is known by a hash of key and value: sixteen bytes of memory a message.
//!
//! ```text
//! one JSON object a line, as `buffer dump` prints records; other fields do not matter
//! topic                 Kafka topic; lines of another are passed over, without one it is ours
//! key, key_base64       the record's key; absent: it has none
//! value, value_base64   the record's value
//! values, values_base64 instead: any one of these, for a sender whose repeats differ
//! ```

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::Value;

/// Longest line.
const LINE_BYTES_MAX: usize = 64 << 20;
/// Missing messages that are shown.
const EXAMPLES: usize = 10;

/// Where a message was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    Buffer,
    Quarantine,
    Kafka,
}

/// The list.
#[derive(Debug, Default)]
pub(super) struct Acked {
    /// Hash and message, sorted.
    hashes: Vec<(u64, u32)>,
    found: Vec<Place>,
}

/// What became of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Judged {
    /// Messages on the list.
    pub acknowledged: u64,
    /// Of them in Kafka.
    pub in_kafka: u64,
    /// Waiting in the gateway's buffer.
    pub buffered: u64,
    /// In the gateway's quarantine.
    pub quarantined: u64,
    /// Nowhere.
    pub missing: u64,
    /// Most of the missing that the loss ledger may explain.
    pub explained: u64,
    /// The first few of them, as they stand on the list.
    pub examples: Vec<String>,
}

impl Acked {
    /// Reads the messages of a topic.
    pub fn read(file: &Path, topic: &str) -> anyhow::Result<Self> {
        let mut acked = Self::default();
        each_line(file, |line| acked.add(line, topic))?;
        acked.hashes.sort_unstable();
        Ok(acked)
    }

    fn add(&mut self, line: &str, topic: &str) -> anyhow::Result<bool> {
        let Some(hashes) = hashes_of(line, topic)? else {
            return Ok(false);
        };
        let message = u32::try_from(self.found.len()).context("more than 2^32 messages")?;
        self.found.push(Place::Nowhere);
        self.hashes
            .extend(hashes.into_iter().map(|hash| (hash, message)));
        Ok(true)
    }

    /// A record with this key and value is there: one message that was not found yet is found.
    pub fn mark(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, place: Place) {
        let wanted = hash(key, value);
        let from = self.hashes.partition_point(|(hash, _)| *hash < wanted);
        let same = self.hashes.get(from..).unwrap_or_default();
        let same = same.iter().take_while(|(hash, _)| *hash == wanted);
        // What left the buffer while we read is in Kafka as well, and counts as being there.
        let mut best: Option<usize> = None;
        for (_, message) in same {
            let at = *message as usize;
            match self.found.get(at) {
                Some(Place::Nowhere) => {
                    best = Some(at);
                    break;
                }
                Some(Place::Buffer | Place::Quarantine) if place == Place::Kafka => {
                    best = best.or(Some(at));
                }
                _ => {}
            }
        }
        if let Some(found) = best.and_then(|at| self.found.get_mut(at)) {
            *found = place;
        }
    }

    /// As [`Acked::mark`], of a record as `buffer dump` has it.
    pub fn mark_json(&mut self, record: &Value, place: Place) {
        if let (Ok(key), Ok(value)) = (bytes(record, "key"), bytes(record, "value")) {
            self.mark(key.as_deref(), value.as_deref(), place);
        }
    }

    /// What became of them; `explained` is what the loss ledger has for this topic.
    pub fn judge(&self, file: &Path, topic: &str, explained: u64) -> anyhow::Result<Judged> {
        let count = |wanted: Place| {
            let found = self.found.iter().filter(|place| **place == wanted);
            found.count() as u64
        };
        let missing = count(Place::Nowhere);
        let (mut examples, mut message) = (Vec::new(), 0usize);
        each_line(file, |line| {
            if hashes_of(line, topic)?.is_none() {
                return Ok(false);
            }
            if self.found.get(message) == Some(&Place::Nowhere) && examples.len() < EXAMPLES {
                examples.push(line.chars().take(200).collect());
            }
            message += 1;
            Ok(true)
        })?;
        Ok(Judged {
            acknowledged: self.found.len() as u64,
            in_kafka: count(Place::Kafka),
            buffered: count(Place::Buffer),
            quarantined: count(Place::Quarantine),
            missing,
            explained: explained.min(missing),
            examples,
        })
    }
}

fn each_line(
    file: &Path,
    mut take: impl FnMut(&str) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let name = file.display();
    let mut lines = BufReader::new(File::open(file).with_context(|| format!("{name}"))?);
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let limited = std::io::Read::take(&mut lines, LINE_BYTES_MAX as u64);
        let read = { limited }.read_until(b'\n', &mut line);
        if read.with_context(|| format!("{name}:{number}"))? == 0 {
            break;
        }
        let text = std::str::from_utf8(&line);
        let text = text.with_context(|| format!("{name}:{number}"))?.trim();
        if !text.is_empty() {
            take(text).with_context(|| format!("{name}:{number}"))?;
        }
    }
    Ok(())
}

/// The hashes by which a line's message is known; `None`: it is of another topic.
fn hashes_of(line: &str, topic: &str) -> anyhow::Result<Option<Vec<u64>>> {
    let message: Value = serde_json::from_str(line).context("not a JSON object")?;
    if message.get("topic").is_some_and(|named| named != topic) {
        return Ok(None);
    }
    let key = bytes(&message, "key")?;
    let one_of = |value: Option<&[u8]>| hash(key.as_deref(), value);
    for name in ["values", "values_base64"] {
        let Some(values) = message.get(name) else {
            continue;
        };
        let values = values
            .as_array()
            .with_context(|| format!("{name}: write a list"))?;
        let hashes = values.iter().map(|value| {
            let value = match (value.as_str(), name) {
                (Some(text), "values") => Some(text.as_bytes().to_vec()),
                (Some(text), _) => BASE64.decode(text).ok(),
                (None, _) => None,
            };
            let value = value.with_context(|| format!("{name}: write texts"))?;
            Ok(one_of(Some(&value)))
        });
        return hashes.collect::<anyhow::Result<Vec<_>>>().map(Some);
    }
    let value = bytes(&message, "value")?;
    Ok(Some(vec![one_of(value.as_deref())]))
}

/// Bytes of a field, as text or in base64; `None`: null or not there.
fn bytes(message: &Value, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let coded = format!("{name}_base64");
    match (message.get(name), message.get(&coded)) {
        (Some(Value::String(text)), None) => Ok(Some(text.clone().into_bytes())),
        (None | Some(Value::Null), None) => Ok(None),
        (None, Some(Value::String(text))) => {
            let decoded = BASE64.decode(text).ok();
            Ok(Some(
                decoded.with_context(|| format!("{coded}: this is no base64"))?,
            ))
        }
        _ => bail!("write {name} as a text, or {coded}"),
    }
}

fn hash(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"
{"key":"a","value":"1"}
{"key":"a","value":"1","topic":"t"}
{"key":"a","value":"9","topic":"other"}
{"key_base64":"/w==","value":null}
{"key":"b","values":["2","3"]}
{"value":"lost"}
"#;

    #[test]
    fn each_acknowledged_message_must_be_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), LIST).unwrap();
        let mut acked = Acked::read(file.path(), "t").unwrap();
        acked.mark(Some(b"a"), Some(b"1"), Place::Buffer);
        // It moved to Kafka meanwhile; the same message once more is the second on the list.
        acked.mark(Some(b"a"), Some(b"1"), Place::Kafka);
        acked.mark(Some(b"a"), Some(b"1"), Place::Kafka);
        acked.mark(Some(b"a"), Some(b"1"), Place::Kafka);
        acked.mark(Some(&[255]), None, Place::Quarantine);
        acked.mark_json(&serde_json::json!({"key": "b", "value": "3"}), Place::Kafka);
        acked.mark(None, Some(b"not on the list"), Place::Kafka);
        let judged = acked.judge(file.path(), "t", 7).unwrap();
        let wanted = Judged {
            acknowledged: 5,
            in_kafka: 3,
            buffered: 0,
            quarantined: 1,
            missing: 1,
            explained: 1,
            examples: vec![r#"{"value":"lost"}"#.to_owned()],
        };
        assert_eq!(judged, wanted);
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for wrong in [
            "x",
            r#"{"key":1}"#,
            r#"{"values":"a"}"#,
            r#"{"value_base64":"!"}"#,
        ] {
            std::fs::write(file.path(), format!("{{}}\n{wrong}\n")).unwrap();
            let error = Acked::read(file.path(), "t").unwrap_err().to_string();
            assert!(error.ends_with(":2"), "{error}");
        }
    }
}
