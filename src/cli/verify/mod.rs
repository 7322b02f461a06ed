//! `tidegate verify`: reads a topic back from Kafka and tells what is missing, twice or out of
//! order, by the provenance headers, with the gateway's loss ledger beside it.
//!
//! What the gateway says is read first, then Kafka: what leaves the buffer meanwhile is found
//! there.

mod account;
mod acked;
mod judge;
mod read;

use std::path::PathBuf;

use clap::Args;

use super::human::{self, Numbers, StreamName};
use super::source::Source;
use super::{ConfigFile, End, out, with_config};
use crate::config::Config;
use account::{Account, Finding};
use acked::{Acked, Judged, Place};
use judge::{Stream, Told, Verdict};

/// `tidegate verify …`
#[derive(Debug, Args)]
#[command(after_help = "\
Ends with 0 when all is well or explained, with 1 when something is not.

Records are told apart by the headers tidegate.id, tidegate.run and tidegate.seq \
(kafka.provenance). The right to READ the topic is needed. The loss ledger and the buffer are \
those of the gateway of this configuration, running or not; on another machine they are not known, \
and every gap is an alarm.")]
pub(super) struct Verify {
    #[command(flatten)]
    file: ConfigFile,
    /// The Kafka topic to read, from its beginning to its end as it is now.
    #[arg(long)]
    topic: String,
    /// Acknowledged messages, to judge by them what runs had behind their last record in Kafka.
    ///
    /// A line of JSON each: key and value (as text, or key_base64 and value_base64) as `buffer
    /// dump` prints them; topic, if the list is of many.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Reads and judges.
pub(super) fn verify(asked: &Verify) -> End {
    with_config(&asked.file, |config| {
        let verdict = look(asked, config)?;
        if asked.json {
            out::line(serde_json::json!(verdict));
        } else {
            tell(&verdict);
        }
        Ok(match verdict.alarms {
            0 => End::Done,
            _ => End::Found,
        })
    })
}

fn look(asked: &Verify, config: &Config) -> anyhow::Result<Verdict> {
    let topic = asked.topic.as_str();
    let list = asked.ledger.as_deref();
    let mut acked = list.map(|file| Acked::read(file, topic)).transpose()?;
    let mut told = Told {
        gateway: config.gateway.id.clone(),
        ..Told::default()
    };
    // A spool that is only looked at is let go before Kafka is read, for that may take long.
    let source = Source::open(config).and_then(|source| {
        ask(&source, topic, &mut told, acked.as_mut())?;
        Ok(source)
    });
    let stopped = matches!(source, Ok(Source::Stopped(_)));
    if let Err(error) = &source {
        told.silent = Some(format!("{error:#}"));
    }
    let source = source.ok().filter(|_| !stopped);
    let mut account = Account::default();
    read::block_on(read::read(
        &config.kafka,
        topic,
        &mut account,
        acked.as_mut(),
    ))??;
    // What was dropped while we read is in the ledger now.
    if let Some(source) = source {
        let ledger = source.ledger(topic)?;
        (told.ledger, told.cut) = (ledger.lines, ledger.cut);
    }
    let explained = judge::explained(&told.ledger);
    let judged = match (&acked, list) {
        (Some(acked), Some(file)) => Some(acked.judge(file, topic, explained)?),
        _ => None,
    };
    Ok(judge::judge(topic, &account, &told, judged))
}

/// What the gateway says of the topic.
fn ask(
    source: &Source,
    topic: &str,
    told: &mut Told,
    mut acked: Option<&mut Acked>,
) -> anyhow::Result<()> {
    let ledger = source.ledger(topic)?;
    (told.ledger, told.cut) = (ledger.lines, ledger.cut);
    for stream in source.streams()? {
        if stream.topic != topic {
            continue;
        }
        let name = StreamName {
            topic: stream.topic,
            partition: stream.partition,
        };
        told.buffered += stream.records;
        if stream.partition >= 0 {
            let cursor = (stream.run, stream.next);
            told.cursors.insert(stream.partition, cursor);
        }
        if let Some(acked) = acked.as_mut().filter(|_| stream.records > 0) {
            source.each_record(Some(&name), |record| {
                acked.mark_json(record, Place::Buffer);
            })?;
        }
    }
    if let Some(acked) = acked {
        for kept in source.quarantine()? {
            if kept.topic == topic {
                acked.mark_json(&source.quarantined(&kept.id)?, Place::Quarantine);
            }
        }
    }
    Ok(())
}

fn tell(verdict: &Verdict) {
    for stream in &verdict.streams {
        for line in lines(&verdict.topic, stream) {
            out::line(line);
        }
    }
    for (partition, offset, why) in &verdict.unreadable {
        let topic = &verdict.topic;
        out::line(format_args!(
            "ALARM      {topic}/{partition} batch at offset {offset}: {why}"
        ));
    }
    if let Some(judged) = &verdict.acknowledged {
        for line in acknowledged(judged) {
            out::line(line);
        }
    }
    for what in &verdict.cannot_know {
        out::line(format_args!("not known  {what}"));
    }
    out::line(summary(verdict));
}

/// A stream's findings, a line each.
fn lines(topic: &str, stream: &Stream) -> Vec<String> {
    let name = StreamName {
        topic: topic.to_owned(),
        partition: stream.partition,
    };
    let place = format!("{name} of {}:", stream.gateway);
    let run = stream.run;
    let mut lines = Vec::new();
    for missing in &stream.missing {
        let (first, end) = (missing.first, missing.end);
        let numbers = Numbers { run, first, end };
        let records = human::count(end - first);
        lines.push(match &missing.reason {
            None => format!("ALARM      {place} {numbers} missing ({records} records)"),
            Some(why) => format!("explained  {place} {numbers} missing ({records}): {why}"),
        });
    }
    let repeats = stream.repeats.records - stream.repeats_explained;
    if repeats > 0 {
        let examples = examples(run, &stream.repeats);
        lines.push(format!(
            "ALARM      {place} {repeats} records twice: {examples}"
        ));
    }
    if stream.repeats_explained > 0 {
        let repeats = stream.repeats_explained;
        lines.push(format!(
            "explained  {place} {repeats} records twice: maybe_twice"
        ));
    }
    if stream.late.records > 0 {
        let (late, examples) = (stream.late.records, examples(run, &stream.late));
        lines.push(format!(
            "ALARM      {place} {late} records out of order: {examples}"
        ));
    }
    lines
}

fn examples(run: u32, finding: &Finding) -> String {
    let all = finding.examples.iter();
    let all: Vec<String> = all
        .map(|(seq, offset)| format!("{run}:{seq} at offset {offset}"))
        .collect();
    let more = if finding.records > all.len() as u64 {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", all.join(", "))
}

fn acknowledged(judged: &Judged) -> Vec<String> {
    let mut lines = Vec::new();
    let alarm = judged.missing > judged.explained;
    if judged.missing > 0 {
        lines.push(format!(
            "{}  of {} acknowledged messages {} are missing; the loss ledger explains at most {}",
            if alarm { "ALARM    " } else { "explained" },
            human::count(judged.acknowledged),
            human::count(judged.missing),
            human::count(judged.explained),
        ));
        if alarm {
            let examples = judged.examples.iter();
            lines.extend(examples.map(|line| format!("           {line}")));
        }
    }
    lines.push(format!(
        "of {} acknowledged messages {} are in Kafka, {} wait in the buffer, {} are in quarantine",
        human::count(judged.acknowledged),
        human::count(judged.in_kafka),
        human::count(judged.buffered),
        human::count(judged.quarantined),
    ));
    lines
}

fn summary(verdict: &Verdict) -> String {
    let sum = |of: fn(&Stream) -> u64| verdict.streams.iter().map(of).sum::<u64>();
    format!(
        "{}: {} records in {} partitions, {} streams and runs: missing {} ({} explained), twice {} \
         ({} explained), out of order {}: {} alarms",
        verdict.topic,
        human::count(verdict.records),
        verdict.partitions,
        verdict.streams.len(),
        human::count(sum(|s| s.missing_explained + s.missing_alarming)),
        human::count(sum(|s| s.missing_explained)),
        human::count(sum(|s| s.repeats.records)),
        human::count(sum(|s| s.repeats_explained)),
        human::count(sum(|s| s.late.records)),
        human::count(verdict.alarms),
    )
}
