//! `tidegate status`: how the gateway is, and how long its buffer lasts.

use std::collections::BTreeMap;

use clap::Args;

use super::source::{self, Source};
use super::{ConfigFile, End, human, out, with_config};
use crate::api::Status;
use crate::app::{self, Held};
use crate::config::Config;
use crate::spool::core::Runway;

/// `tidegate status …`
#[derive(Debug, Args)]
pub(super) struct Asked {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Asks the gateway; tells what waits when none runs.
pub(super) fn status(asked: &Asked) -> End {
    with_config(&asked.file, |config| tell(config, asked.json))
}

fn tell(config: &Config, json: bool) -> anyhow::Result<End> {
    if let Held::ByNobody(lock) = app::lock_to_look(&config.gateway.data_dir)? {
        drop(lock);
        return stopped(config, json);
    }
    let status: Status = source::running(config)?.get("/tidegate/status", &[])?;
    if json {
        out::line(serde_json::to_string(&status)?);
    } else {
        for line in lines(&status) {
            out::line(line);
        }
    }
    Ok(End::Done)
}

fn stopped(config: &Config, json: bool) -> anyhow::Result<End> {
    let streams = Source::open(config)?.streams()?;
    let records = streams.iter().map(|stream| stream.records).sum();
    if json {
        let status = serde_json::json!({ "running": false, "buffered_records": records });
        out::line(status);
    } else {
        let records = human::count(records);
        out::line(format_args!(
            "no gateway runs; {records} records wait on disk"
        ));
    }
    Ok(End::Found)
}

fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![
        format!(
            "gateway     {}, up {}, {} devices{}",
            status.version,
            human::seconds(status.uptime_seconds as f64),
            human::count(status.connections),
            if status.accepting {
                ""
            } else {
                ", not accepting"
            },
        ),
        match (status.uplink_up, status.streams_stalled) {
            (false, _) => "kafka       does not answer".to_owned(),
            (true, 0) => "kafka       answers".to_owned(),
            (true, stalled) => format!("kafka       answers, but {stalled} streams are stalled"),
        },
        format!(
            "buffered    {} records, {} in memory, {} of segments on disk, oldest {}",
            human::count(status.buffered_records),
            human::bytes(status.buffered_memory_bytes),
            human::bytes(status.buffered_disk_bytes),
            human::seconds(status.buffered_age_ms as f64 / 1e3),
        ),
        disk(&status.runway, status.full),
    ];
    lines.extend(backlog(&status.runway, status.uplink_up));
    lines.push(format!(
        "quarantine  {} records",
        human::count(status.quarantined)
    ));
    lines.push(format!("dropped     {}", reasons(&status.dropped)));
    lines.push(format!("lost        {}", reasons(&status.lost)));
    if status.maybe_twice > 0 {
        let twice = human::count(status.maybe_twice);
        lines.push(format!("maybe twice {twice} records"));
    }
    lines
}

fn disk(runway: &Runway, full: bool) -> String {
    let room = human::bytes(runway.room_bytes);
    if full {
        return "disk        full".to_owned();
    }
    let Some(seconds) = runway.runway_seconds else {
        return format!("disk        room for {room}; nothing comes in");
    };
    format!(
        "disk        room for {room}: without Kafka, at this rate ({:.1} records/s), {}{}",
        runway.inflow_records_per_second,
        if runway.guessed { "at least " } else { "" },
        human::seconds(seconds),
    )
}

fn backlog(runway: &Runway, up: bool) -> Option<String> {
    match runway.drain_seconds {
        Some(seconds) if seconds <= 0.0 => None,
        Some(seconds) => Some(format!(
            "backlog     drains in {} at this rate ({:.1} records/s sent)",
            human::seconds(seconds),
            runway.sent_records_per_second,
        )),
        None if up => Some("backlog     does not shrink".to_owned()),
        None => Some("backlog     waits for Kafka".to_owned()),
    }
}

fn reasons(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "nothing since the start".to_owned();
    }
    let each = counts
        .iter()
        .map(|(reason, count)| format!("{} {reason}", human::count(*count)));
    format!("{} since the start", each.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outage_runway_is_told() {
        let runway = Runway {
            inflow_records_per_second: 12.34,
            sent_records_per_second: 500.0,
            room_bytes: 3 << 29,
            runway_seconds: Some(31.0 * 3_600.0),
            drain_seconds: Some(22.0 * 60.0),
            ..Runway::default()
        };
        assert_eq!(
            disk(&runway, false),
            "disk        room for 1.5 GiB: without Kafka, at this rate (12.3 records/s), 31 h"
        );
        let backlog = backlog(&runway, true);
        assert_eq!(
            backlog.as_deref(),
            Some("backlog     drains in 22 min at this rate (500.0 records/s sent)")
        );
    }
}
