//! Reads a topic from its beginning to the end that it has now, partition by partition.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::sleep;

use super::account::{Account, Origin};
use super::acked::{Acked, Place};
use crate::config::checked::Kafka;
use crate::kafka::client::{Client, Error, NodeId, Which};
use crate::kafka::unpack;
use crate::uplink;

/// Log that one request asks for.
const FETCH_BYTES: usize = 1 << 20;
/// Tries of a request, and the wait between two: a leader that moves takes a while.
const TRIES: u32 = 30;
const WAIT: Duration = Duration::from_secs(1);
/// Unreadable batches of a partition that are named.
const UNREADABLE_MAX: usize = 100;

/// One topic of a cluster.
struct Topic<'a> {
    client: Client,
    name: &'a str,
}

/// Reads all of `topic` into `account` and marks what is on the list.
pub(super) async fn read(
    kafka: &Kafka,
    topic: &str,
    account: &mut Account,
    mut acked: Option<&mut Acked>,
) -> anyhow::Result<()> {
    let mut config = kafka.clone();
    config.client_id.push_str("-verify");
    let topic = Topic {
        client: uplink::client(&config),
        name: topic,
    };
    let mut spans = Vec::new();
    for partition in 0..topic.partitions().await? {
        let begin = topic.offset(partition, Which::Earliest).await?;
        let end = topic.offset(partition, Which::Latest).await?;
        account.partition(partition).begin = begin;
        spans.push((partition, begin, end));
    }
    for span in spans {
        topic.read(span, account, acked.as_deref_mut()).await?;
    }
    topic.client.close().await;
    Ok(())
}

impl Topic<'_> {
    async fn partitions(&self) -> anyhow::Result<i32> {
        let topic = self.client.topic(self.name, true).await?;
        match topic.code {
            0 => Ok(i32::try_from(topic.leaders.len())?),
            3 => bail!("there is no topic {} in this cluster", self.name),
            29 => bail!("topic {}: no right to DESCRIBE it", self.name),
            code => bail!("topic {}: Kafka's error {code}", self.name),
        }
    }

    async fn offset(&self, partition: i32, which: Which) -> anyhow::Result<i64> {
        self.again(partition, |node| {
            self.client.list_offsets(node, self.name, partition, which)
        })
        .await
    }

    /// Asks the leader until it answers.
    async fn again<T, F: Future<Output = Result<T, Error>>>(
        &self,
        partition: i32,
        ask: impl Fn(NodeId) -> F,
    ) -> anyhow::Result<T> {
        let mut last = anyhow::anyhow!("it has no leader");
        for tries in 0..TRIES {
            if tries > 0 {
                sleep(WAIT).await;
            }
            let metadata = self.client.topic(self.name, tries > 0).await;
            let leader = metadata.map(|metadata| {
                let at = usize::try_from(partition).ok();
                at.and_then(|at| metadata.leaders.get(at).copied().flatten())
            });
            match leader {
                Ok(Some(node)) => match ask(node).await {
                    Ok(answer) => return Ok(answer),
                    Err(Error::Code { code: 29, .. }) => {
                        bail!("topic {}: no right to READ it", self.name)
                    }
                    Err(error) => last = error.into(),
                },
                Ok(None) => {}
                Err(error) => last = error.into(),
            }
        }
        let name = self.name;
        Err(last).with_context(|| format!("{name}/{partition} cannot be read"))
    }

    async fn read(
        &self,
        (partition, begin, end): (i32, i64, i64),
        account: &mut Account,
        mut acked: Option<&mut Acked>,
    ) -> anyhow::Result<()> {
        let (mut at, mut idle) = (begin, 0);
        while at < end && !account.is_full() {
            let from = at;
            let place = (self.name, partition);
            let fetched = self
                .again(partition, |node| {
                    self.client.fetch(node, place, from, FETCH_BYTES)
                })
                .await?;
            let mut log = fetched.log;
            while let Some(batch) = unpack::take_batch(&mut log) {
                let Some((first, last)) = unpack::offsets(&batch) else {
                    break;
                };
                if last < at || first >= end {
                    continue;
                }
                let read = unpack::each_record(&batch, |record| {
                    if record.offset < at || record.offset >= end {
                        return;
                    }
                    let origin = Origin::of(&record.headers);
                    let fresh = account.take(partition, record.offset, origin);
                    if let Some(acked) = acked.as_mut().filter(|_| fresh) {
                        acked.mark(record.key, record.value, Place::Kafka);
                    }
                });
                note(account, partition, (at, first, last), read);
                at = last + 1;
            }
            idle = if at > from { 0 } else { idle + 1 };
            if idle > 0 {
                let name = self.name;
                if idle >= TRIES {
                    bail!("{name}/{partition}: nothing readable at offset {at}, below {end}");
                }
                sleep(WAIT).await;
            }
        }
        Ok(())
    }
}

/// What a batch tells beside its records.
fn note(
    account: &mut Account,
    partition: i32,
    (expected, first, last): (i64, i64, i64),
    read: Result<unpack::BatchSpan, unpack::UnpackError>,
) {
    let there = account.partition(partition);
    let skipped = u64::try_from(first - expected).unwrap_or(0);
    match read {
        Ok(span) => {
            let offsets = u64::try_from(last - first + 1).unwrap_or(0);
            there.compacted += skipped + offsets.saturating_sub(span.records);
        }
        Err(error) if there.unreadable.len() < UNREADABLE_MAX => {
            there.unreadable.push((first, error.to_string()));
        }
        Err(_) => {}
    }
}

/// A runtime for the client; nothing else runs in this process.
pub(super) fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = Arc::new(runtime.context("cannot start the runtime")?);
    Ok(runtime.block_on(future))
}
