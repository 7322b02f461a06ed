//! `tidegate buffer`: what waits for Kafka, on a running gateway or a stopped one.

use clap::{Args, Subcommand};

use super::edit::Editor;
use super::human::{self, Numbers, StreamName};
use super::source::Source;
use super::{ConfigFile, End, out, with_config};
use crate::config::Config;
use crate::spool::Ranges;
use crate::spool::inspect::{DamageInfo, QuarantineInfo, StreamInfo};

/// `tidegate buffer …`
#[derive(Debug, Args)]
pub(super) struct Buffer {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the streams (topic/partition) that have records waiting.
    Ls {
        /// Those that have none, too.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what waits of one stream, number by number.
    Show {
        /// TOPIC/PARTITION, as `ls` prints it.
        stream: StreamName,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the records that wait, each as a line of JSON.
    Dump {
        /// Only those of TOPIC/PARTITION.
        #[arg(long)]
        stream: Option<StreamName>,
    },
    /// Read every frame on disk and tell what is damaged; ends with 1 if something is.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Drop records of one stream for good; they are written to the loss ledger.
    Drop {
        /// TOPIC/PARTITION, as `ls` prints it.
        #[arg(long)]
        stream: StreamName,
        /// RUN:FIRST-LAST, as `show` prints them; may be given several times.
        #[arg(long, required_unless_present = "all", conflicts_with = "all")]
        range: Vec<Numbers>,
        /// All that waits of the stream.
        #[arg(long)]
        all: bool,
    },
    /// Look at, or take out, the records that Kafka has rejected for good.
    Quarantine {
        #[command(subcommand)]
        what: Quarantine,
    },
}

#[derive(Debug, Subcommand)]
enum Quarantine {
    /// List them, each with its id and Kafka's reason.
    Ls {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print one whole, as JSON.
    Show {
        /// Its id, as `ls` prints it.
        id: String,
    },
    /// Send them once more, behind what waits for their topics.
    Retry(Chosen),
    /// Drop them for good.
    Drop(Chosen),
}

/// Records in quarantine.
#[derive(Debug, Args)]
struct Chosen {
    /// Their ids, as `ls` prints them.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

/// Does what was asked.
pub(super) fn buffer(buffer: &Buffer) -> End {
    with_config(&buffer.file, |config| match &buffer.what {
        What::Drop { stream, range, .. } => drop_ranges(config, stream, range),
        What::Quarantine {
            what: Quarantine::Retry(chosen),
        } => take_out(config, chosen, true),
        What::Quarantine {
            what: Quarantine::Drop(chosen),
        } => take_out(config, chosen, false),
        looked => look(&Source::open(config)?, looked),
    })
}

fn look(source: &Source, what: &What) -> anyhow::Result<End> {
    match what {
        What::Ls { all, json } => {
            let mut streams = source.streams()?;
            streams.retain(|stream| *all || stream.records > 0);
            streams.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
            if *json {
                out::line(serde_json::to_string(&streams)?);
            } else {
                out::line(list(&streams));
            }
        }
        What::Show { stream, json } => show(source, stream, *json)?,
        What::Dump { stream } => source.each_record(stream.as_ref(), |record| out::line(record))?,
        What::Check { json } => return check(source, *json),
        What::Quarantine { what } => match what {
            Quarantine::Ls { json } => {
                let records = source.quarantine()?;
                if *json {
                    out::line(serde_json::to_string(&records)?);
                } else {
                    out::line(list_quarantine(&records));
                }
            }
            Quarantine::Show { id } => {
                out::line(serde_json::to_string_pretty(&source.quarantined(id)?)?);
            }
            Quarantine::Retry(_) | Quarantine::Drop(_) => {}
        },
        What::Drop { .. } => {}
    }
    Ok(End::Done)
}

/// Drops ranges of a stream, or, without any, all that waits of it. Ends with 1 when less was
/// dropped than there is.
fn drop_ranges(config: &Config, stream: &StreamName, ranges: &[Numbers]) -> anyhow::Result<End> {
    let there = Source::open(config)?.ranges(stream)?;
    let (mut wanted, mut dropped) = (0, 0);
    let editor = Editor::open(config)?;
    for left in there {
        let (run, all) = (left.run, [Numbers::from(&left)]);
        let asked = if ranges.is_empty() { &all[..] } else { ranges };
        for numbers in asked.iter().filter(|numbers| numbers.run == run) {
            let first = left.first.max(numbers.first);
            let end = left.end.min(numbers.end);
            if first < end {
                wanted += end - first;
                dropped += editor.drop_range(stream, Numbers { run, first, end })?;
            }
        }
    }
    out::line(format_args!(
        "{} records dropped; the loss ledger has them as by_hand",
        human::count(dropped)
    ));
    if dropped < wanted {
        let left = human::count(wanted - dropped);
        out::line(format_args!(
            "{left} are in Kafka meanwhile, or on their way there, and were left alone"
        ));
        return Ok(End::Found);
    }
    Ok(End::Done)
}

/// Takes records out of quarantine, to try them again or for good.
fn take_out(config: &Config, chosen: &Chosen, retry: bool) -> anyhow::Result<End> {
    let ids = if chosen.all {
        let kept = Source::open(config)?.quarantine()?;
        kept.into_iter().map(|kept| kept.id).collect()
    } else {
        chosen.ids.clone()
    };
    let records = Editor::open(config)?.quarantine(&ids, retry)?;
    let done = if retry {
        "are in the buffer again"
    } else {
        "dropped"
    };
    out::line(format_args!("{} records {done}", human::count(records)));
    Ok(End::Done)
}

fn name_of(topic: &str, partition: i32) -> String {
    let topic = topic.to_owned();
    StreamName { topic, partition }.to_string()
}

fn age(oldest_ms: Option<i64>) -> String {
    let age = |ms: i64| super::now_ms().saturating_sub(ms).max(0) as f64 / 1e3;
    oldest_ms.map_or_else(|| "-".to_owned(), |ms| human::seconds(age(ms)))
}

fn list(streams: &[StreamInfo]) -> String {
    if streams.is_empty() {
        return "nothing waits".to_owned();
    }
    let rows: Vec<Vec<String>> = streams
        .iter()
        .map(|stream| {
            vec![
                name_of(&stream.topic, stream.partition),
                human::count(stream.records),
                human::bytes(stream.memory_bytes),
                human::bytes(stream.disk_bytes),
                age(stream.oldest_ms),
                stream.priority.to_string(),
                stream.held.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let head = [
        "stream",
        "records",
        "in memory",
        "on disk",
        "oldest",
        "priority",
        "held",
    ];
    let records = streams.iter().map(|stream| stream.records).sum();
    format!(
        "{}\n{} streams, {} records",
        human::table(&head, &rows),
        streams.len(),
        human::count(records)
    )
}

fn show(source: &Source, name: &StreamName, json: bool) -> anyhow::Result<()> {
    let ranges = source.ranges(name)?;
    let mut streams = source.streams()?;
    streams.retain(|s| s.topic == name.topic && s.partition == name.partition);
    let stream = streams.pop();
    if json {
        out::line(serde_json::json!({ "stream": stream, "ranges": ranges }));
        return Ok(());
    }
    if let Some(stream) = stream {
        out::line(list(std::slice::from_ref(&stream)));
        let (run, next) = (stream.run, stream.next);
        out::line(format_args!(
            "everything before {run}:{next} is in Kafka or in the ledger"
        ));
    }
    for range in &ranges {
        let numbers = Numbers::from(range);
        let place = if range.on_disk {
            "on disk"
        } else {
            "in memory only"
        };
        let records = human::count(range.end - range.first);
        out::line(format_args!("{numbers}  {records} records {place}"));
    }
    Ok(())
}

fn list_quarantine(records: &[QuarantineInfo]) -> String {
    if records.is_empty() {
        return "nothing is in quarantine".to_owned();
    }
    let row = |kept: &QuarantineInfo| {
        let number = format!("{}:{}", kept.run, kept.seq);
        let name = name_of(&kept.topic, kept.partition);
        vec![kept.id.clone(), name, number, kept.cause.clone()]
    };
    let rows: Vec<_> = records.iter().map(row).collect();
    let table = human::table(&["id", "stream", "number", "cause"], &rows);
    format!("{table}\n{} records", records.len())
}

/// What a whole check has found.
#[derive(Debug, Default, serde::Serialize)]
struct Checked {
    frames: u64,
    records: u64,
    bytes: u64,
    /// Records that are neither in Kafka nor to be read.
    lost: u64,
    torn_tails: u64,
    damage: Vec<DamageInfo>,
}

fn check(source: &Source, json: bool) -> anyhow::Result<End> {
    let mut checked = Checked::default();
    let mut after = None;
    loop {
        let page = source.check(after.as_deref())?;
        checked.frames += page.frames;
        checked.records += page.records;
        checked.bytes += page.bytes;
        checked.damage.extend(page.damage);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if let Source::Stopped(stopped) = source {
        checked.torn_tails = stopped.look.torn_tails;
        add_news(&mut checked.damage, &stopped.look.damage);
    }
    let ranges = checked.damage.iter().flat_map(|damage| &damage.ranges);
    let lost = ranges.flat_map(|range| &range.lost);
    checked.lost = lost.map(|(first, end)| end - first).sum();
    let end = if checked.damage.is_empty() {
        End::Done
    } else {
        End::Found
    };
    if json {
        out::line(serde_json::to_string(&checked)?);
        return Ok(end);
    }
    for damage in &checked.damage {
        out::line(tell(damage));
    }
    if checked.torn_tails > 0 {
        let tails = checked.torn_tails;
        out::line(format_args!(
            "{tails} torn tails, as after a power cut: nothing of them was acknowledged"
        ));
    }
    out::line(format_args!(
        "{} frames, {} records, {} read: {} places damaged, {} records lost",
        human::count(checked.frames),
        human::count(checked.records),
        human::bytes(checked.bytes),
        checked.damage.len(),
        human::count(checked.lost)
    ));
    Ok(end)
}

/// Adds what reading the frames has not shown: files that are no segments any more, missing ends.
fn add_news(found: &mut Vec<DamageInfo>, at_start: &[DamageInfo]) {
    let mut known: std::collections::HashMap<(String, i32, u32), Ranges> =
        std::collections::HashMap::new();
    let place = |topic: &String, partition, run| (topic.clone(), partition, run);
    for range in found.iter().flat_map(|damage| &damage.ranges) {
        let ranges = known.entry(place(&range.topic, range.partition, range.run));
        ranges.or_default().add(range.first, range.end);
    }
    for damage in at_start {
        let in_found = found.iter().any(|f| f.segment == damage.segment);
        let told = damage.ranges.iter().all(|range| {
            let ranges = known.get(&place(&range.topic, range.partition, range.run));
            ranges.is_some_and(|r| r.missing(range.first, range.end).pieces() == 0)
        });
        if !(told && in_found) {
            found.push(damage.clone());
        }
    }
}

fn tell(damage: &DamageInfo) -> String {
    let mut line = match (damage.segment, damage.offset) {
        (Some(segment), Some(offset)) => format!("segment {segment} at {offset}: "),
        (Some(segment), None) => format!("segment {segment}: "),
        (None, _) => String::new(),
    };
    line.push_str(&damage.what);
    line.push_str(if damage.exact {
        "; it held"
    } else {
        "; by its neighbours it held"
    });
    if damage.ranges.is_empty() {
        line.push_str(" nothing that is known");
    }
    for range in &damage.ranges {
        let numbers = |first, end| Numbers {
            run: range.run,
            first,
            end,
        };
        let name = name_of(&range.topic, range.partition);
        line.push_str(&format!("\n  {name} {}: ", numbers(range.first, range.end)));
        line.push_str(&match range.lost.as_slice() {
            [] => "in Kafka or in the ledger already".to_owned(),
            [all] if *all == (range.first, range.end) => "lost".to_owned(),
            parts => {
                let parts: Vec<String> = parts
                    .iter()
                    .map(|(first, end)| numbers(*first, *end).to_string())
                    .collect();
                format!("lost is {}, the rest is not", parts.join(", "))
            }
        });
    }
    line
}
