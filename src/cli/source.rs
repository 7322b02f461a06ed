//! Whom the tools ask: a running gateway by its API, or, when none runs, the spool itself.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::client::Client;
use super::human::StreamName;
use crate::api::{LISTENING, Listening};
use crate::app::{self, Held};
use crate::config::Config;
use crate::spool::Ranges;
use crate::spool::core::{Look, Spool};
use crate::spool::inspect::{
    CheckPage, LedgerPage, QuarantineInfo, QuarantinePage, RangeInfo, RecordsPage, StreamInfo,
};
use crate::spool::meta::Loss;

/// Whom to ask.
#[derive(Debug)]
pub(super) enum Source {
    /// A gateway that runs.
    Running(Client),
    /// A spool that nobody uses.
    Stopped(Box<Stopped>),
}

/// A spool that nobody uses, and what keeps it so.
#[derive(Debug)]
pub(super) struct Stopped {
    pub look: Look,
    // Dropped in this order.
    _copy: Copy,
    _lock: File,
}

/// The loss ledger of one gateway, as far as it goes.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub lines: Vec<Loss>,
    /// Its oldest lines were given up.
    pub cut: bool,
}

impl Source {
    /// The gateway of this configuration.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let data_dir = &config.gateway.data_dir;
        match app::lock_to_look(data_dir)? {
            Held::ByAGateway => Ok(Self::Running(running(config)?)),
            Held::ByNobody(lock) => {
                let folder = data_dir.join("spool");
                let copy = Copy::of(&folder.join("meta"))?;
                let look = Spool::look(&config.spool, &folder, &copy.0)?;
                Ok(Self::Stopped(Box::new(Stopped {
                    look,
                    _copy: copy,
                    _lock: lock,
                })))
            }
        }
    }

    /// All streams, drained ones too.
    pub fn streams(&self) -> anyhow::Result<Vec<StreamInfo>> {
        match self {
            Self::Running(api) => api.get("/tidegate/streams", &[]),
            Self::Stopped(stopped) => Ok(stopped.look.spool.streams()),
        }
    }

    /// What is left of a stream.
    pub fn ranges(&self, stream: &StreamName) -> anyhow::Result<Vec<RangeInfo>> {
        match self {
            Self::Running(api) => {
                let partition = stream.partition.to_string();
                let query = [("topic", &*stream.topic), ("partition", &partition)];
                api.get("/tidegate/ranges", &query)
            }
            Self::Stopped(stopped) => {
                let spool = &stopped.look.spool;
                let id = spool.stream_id(&stream.topic, stream.partition);
                let id = id.with_context(|| format!("no stream {stream} is known"))?;
                Ok(spool.ranges(id))
            }
        }
    }

    /// Hands over each record that is left, of a stream or of all, once.
    pub fn each_record(
        &self,
        stream: Option<&StreamName>,
        mut take: impl FnMut(&serde_json::Value),
    ) -> anyhow::Result<()> {
        let mut seen: std::collections::HashMap<String, Ranges> = std::collections::HashMap::new();
        let mut after = None;
        loop {
            let page = self.records(stream, after.as_deref())?;
            for record in &page.records {
                let place = ["topic", "partition", "run"].map(|name| record.get(name));
                let place = format!("{place:?}");
                let seq = record.get("seq").and_then(serde_json::Value::as_u64);
                if seq.is_some_and(|seq| seen.entry(place).or_default().insert(seq)) {
                    take(record);
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn records(
        &self,
        stream: Option<&StreamName>,
        after: Option<&str>,
    ) -> anyhow::Result<RecordsPage> {
        match self {
            Self::Running(api) => {
                let partition = stream.map_or_else(String::new, |s| s.partition.to_string());
                let mut query = Vec::new();
                query.extend(stream.map(|stream| ("topic", &*stream.topic)));
                query.extend(stream.map(|_| ("partition", &*partition)));
                query.extend(after.map(|after| ("after", after)));
                api.get("/tidegate/records", &query)
            }
            Self::Stopped(stopped) => {
                let spool = &stopped.look.spool;
                let id = match stream {
                    None => None,
                    Some(stream) => {
                        let id = spool.stream_id(&stream.topic, stream.partition);
                        Some(id.with_context(|| format!("no stream {stream} is known"))?)
                    }
                };
                Ok(spool.records(id, after)?)
            }
        }
    }

    /// Reads the next frames of all, and tells which cannot be read.
    pub fn check(&self, after: Option<&str>) -> anyhow::Result<CheckPage> {
        match self {
            Self::Running(api) => {
                let after: Vec<_> = after.map(|after| ("after", after)).into_iter().collect();
                api.get("/tidegate/check", &after)
            }
            Self::Stopped(stopped) => Ok(stopped.look.spool.check(after)?),
        }
    }

    /// The records in quarantine.
    pub fn quarantine(&self) -> anyhow::Result<Vec<QuarantineInfo>> {
        let (mut all, mut after): (Vec<_>, Option<String>) = (Vec::new(), None);
        loop {
            let page: QuarantinePage = match self {
                Self::Running(api) => {
                    let query: Vec<_> =
                        after.as_deref().map(|a| ("after", a)).into_iter().collect();
                    api.get("/tidegate/quarantine", &query)?
                }
                Self::Stopped(stopped) => stopped.look.spool.quarantine_page(after.as_deref())?,
            };
            all.extend(page.records);
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// A record in quarantine, whole.
    pub fn quarantined(&self, id: &str) -> anyhow::Result<serde_json::Value> {
        match self {
            Self::Running(api) => api.get(&format!("/tidegate/quarantine/{id}"), &[]),
            Self::Stopped(stopped) => {
                let record = stopped.look.spool.quarantined_record(id);
                record.with_context(|| format!("no record {id} in quarantine"))
            }
        }
    }

    /// The loss ledger's lines of a topic.
    pub fn ledger(&self, topic: &str) -> anyhow::Result<Ledger> {
        let (mut ledger, mut after): (Ledger, Option<String>) = (Ledger::default(), None);
        loop {
            let page: LedgerPage = match self {
                Self::Running(api) => {
                    let mut query = vec![("topic", topic)];
                    query.extend(after.as_deref().map(|after| ("after", after)));
                    api.get("/tidegate/ledger", &query)?
                }
                Self::Stopped(stopped) => {
                    let spool = &stopped.look.spool;
                    spool.ledger(Some(topic), after.as_deref())?
                }
            };
            ledger.lines.extend(page.lines);
            ledger.cut |= page.cut;
            after = page.next;
            if after.is_none() {
                return Ok(ledger);
            }
        }
    }
}

/// The API of the gateway that runs on the data folder.
pub(super) fn running(config: &Config) -> anyhow::Result<Client> {
    let path = config.gateway.data_dir.join(LISTENING);
    let name = path.display();
    let text = std::fs::read(&path).with_context(|| {
        format!("{name}: the gateway is starting, or cannot say where its API is")
    })?;
    let listening: Listening =
        serde_json::from_slice(&text).with_context(|| format!("{name}: odd content"))?;
    match listening.api {
        Some(address) => Ok(Client::new(address)),
        None => bail!(
            "the gateway runs and its configuration has no [api] to ask: stop it, or add [api]"
        ),
    }
}

/// A copy of a folder that is removed in the end. sled changes what it opens, and as another user
/// would leave files that the gateway cannot use.
#[derive(Debug)]
struct Copy(PathBuf);

impl Copy {
    fn of(folder: &Path) -> anyhow::Result<Self> {
        let name = format!("tidegate-look-{}-{}", std::process::id(), super::now_ms());
        let to = std::env::temp_dir().join(name);
        let copy = Self(to);
        if folder.exists() {
            copy_folder(folder, &copy.0).with_context(|| {
                format!("cannot copy {} to {}", folder.display(), copy.0.display())
            })?;
        } else {
            make_folder(&copy.0).with_context(|| format!("cannot make {}", copy.0.display()))?;
        }
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What stays is in the system's folder for such things.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A folder that only we can read.
fn make_folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    make_folder(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &copy)?;
        } else {
            std::fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}
