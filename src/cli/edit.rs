//! `tidegate buffer drop` and `quarantine drop|retry`: what takes something out. Of a stopped
//! gateway the spool is opened as a start would, with the data folder's lock.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::client::Client;
use super::human::{Numbers, StreamName};
use super::source;
use crate::api::{Done, Drop as DropRange, Ids};
use crate::app::{self, Held};
use crate::config::Config;
use crate::log;
use crate::metrics::Metrics;
use crate::spool::Run;
use crate::spool::core::Spool;

/// Ids in one request.
const IDS_MAX: usize = 1_000;

/// Whom to have it done by.
#[derive(Debug)]
pub(super) enum Editor {
    /// A gateway that runs.
    Running(Client),
    /// The spool itself, while no gateway runs.
    Stopped(Opened),
}

/// A spool that is ours for the moment.
#[derive(Debug)]
pub(super) struct Opened {
    spool: Spool,
    _lock: File,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.spool.stop();
    }
}

impl Editor {
    /// Of the gateway of this configuration.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let data_dir = &config.gateway.data_dir;
        if let Held::ByAGateway = app::lock_to_look(data_dir)? {
            return Ok(Self::Running(source::running(config)?));
        }
        // Files that we make must be the gateway's to use.
        let owner = std::fs::metadata(data_dir)?.uid();
        let we = std::fs::metadata("/proc/self")
            .context("cannot tell which user this is")?
            .uid();
        if owner != we {
            let name = data_dir.display();
            bail!("{name} belongs to user {owner}, this is {we}: do it as that user");
        }
        log::init("warn", false)?;
        let lock = app::lock(data_dir)?;
        let folder = data_dir.join("spool");
        let spool = Spool::open(&config.spool, &folder, Arc::new(Metrics::default()))?;
        spool.hurry();
        Ok(Self::Stopped(Opened { spool, _lock: lock }))
    }

    /// Drops numbers of a stream; gives how many records that were.
    pub fn drop_range(&self, stream: &StreamName, numbers: Numbers) -> anyhow::Result<u64> {
        let Numbers { run, first, end } = numbers;
        match self {
            Self::Running(api) => {
                let body = DropRange {
                    topic: stream.topic.clone(),
                    partition: stream.partition,
                    run,
                    first,
                    end,
                };
                let done: Done = api.post("/tidegate/drop", &body)?;
                Ok(done.records)
            }
            Self::Stopped(opened) => {
                let id = opened.spool.stream_id(&stream.topic, stream.partition);
                let id = id.with_context(|| format!("no stream {stream} is known"))?;
                Ok(opened.spool.drop_by_hand(id, Run(run), (first, end))?)
            }
        }
    }

    /// Takes records out of quarantine, for good or to try them again; gives how many.
    pub fn quarantine(&self, ids: &[String], retry: bool) -> anyhow::Result<u64> {
        let mut records = 0;
        for ids in ids.chunks(IDS_MAX) {
            records += match (self, retry) {
                (Self::Running(api), _) => {
                    let verb = if retry { "retry" } else { "drop" };
                    let body = Ids { ids: ids.to_vec() };
                    let done: Done = api.post(&format!("/tidegate/quarantine/{verb}"), &body)?;
                    done.records
                }
                (Self::Stopped(opened), true) => opened.spool.quarantine_retry(ids)?,
                (Self::Stopped(opened), false) => opened.spool.quarantine_drop(ids)?,
            };
        }
        Ok(records)
    }
}
