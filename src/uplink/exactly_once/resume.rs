//! The questions: where do records of unknown fate stand?
//!
//! First `DescribeProducers`, one request for many partitions. What the leader says counts records
//! that are not replicated yet, so "all of it is there" is proven by a look at the log below the
//! high watermark, and a producer that the leader has forgotten is searched for in the log's tail:
//! batch headers only, bounded.

use std::sync::Arc;
use std::time::Duration;

use super::ExactlyOnce;
use super::place::{Place, Question, offset_behind, place, within};
use crate::kafka::client::{NodeId, Which};
use crate::spool::{Leftover, TopicPartition};
use crate::uplink::error::{
    Cause, OFFSET_NOT_AVAILABLE, OFFSET_OUT_OF_RANGE, SendError, is_denied, of_call, of_code,
};
use crate::uplink::{Batch, Stand};

/// Bytes of log a call looks at.
const LOOK_BYTES: usize = 1 << 20;
/// Calls a search takes at most when it knows where to start, and when it does not.
const LOOKS_FROM_OFFSET: usize = 64;
const LOOKS_FROM_TAIL: usize = 4;
/// Records from the end at which a search starts that does not know where.
const TAIL_RECORDS: i64 = 50_000;
/// The same beyond the records in question, where only the log's end must be proven.
const PROOF_RECORDS: i64 = 1_000;
/// Deadline of one search.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(20);

/// What becomes of records that a leader seems to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// They are sent again with the same bytes.
    Repeated,
    /// What comes behind them is sent.
    Passed,
}

/// What was found in a log.
#[derive(Debug)]
struct Found {
    /// Last sequence of ours and the offset behind it.
    last: Option<(i32, i64)>,
    /// Whether the log was searched from where ours may begin to its end.
    whole: bool,
    /// How far it was searched: all that replicas have.
    end: i64,
}

impl Found {
    /// By who has not looked.
    const NOTHING: Self = Self {
        last: None,
        whole: false,
        end: 0,
    };
}

impl ExactlyOnce {
    /// Where batches of this run stand.
    pub(super) async fn where_batches(
        &self,
        node: NodeId,
        batches: Vec<Batch>,
    ) -> Vec<(Batch, Result<Stand, SendError>)> {
        let asked = batches.iter().map(|batch| {
            let taken = &batch.taken;
            let identity = self.identities.lock().of(taken.sent_as).cloned();
            let question = identity.map(|identity| Question {
                producer_id: identity.producer_id,
                epoch: identity.epoch,
                sequence: taken.sequence,
                records: u64::try_from(taken.records.len()).unwrap_or(u64::MAX),
                epoch_after: None,
            });
            (taken.to.clone(), question, batch.offset)
        });
        let stands = self.stands(node, asked.collect(), Then::Repeated).await;
        batches.into_iter().zip(stands).collect()
    }

    /// Where what older runs left stands.
    pub(super) async fn where_leftovers(
        &self,
        node: NodeId,
        leftovers: Vec<Leftover>,
    ) -> Vec<(Leftover, Result<Stand, SendError>)> {
        let asked = leftovers.iter().map(|leftover| {
            let identities = self.identities.lock();
            let question = identities.of(leftover.sent_as).map(|identity| Question {
                producer_id: identity.producer_id,
                epoch: identity.epoch,
                sequence: leftover.sequence,
                records: (leftover.last_sequence + 1).saturating_sub(leftover.sequence),
                epoch_after: identities.greatest_epoch(identity.producer_id),
            });
            (leftover.to.clone(), question, leftover.offset)
        });
        let stands = self.stands(node, asked.collect(), Then::Passed).await;
        let mut answers = Vec::with_capacity(leftovers.len());
        for (leftover, stand) in leftovers.into_iter().zip(stands) {
            let stand = match stand {
                Ok(Stand::NoIdentity)
                    if self.identities.lock().is_unidentified(leftover.sent_as) =>
                {
                    Ok(Stand::Unidentified)
                }
                Ok(Stand::Blind) => self.unasked(node, &leftover).await,
                stand => stand,
            };
            answers.push((leftover, stand));
        }
        answers
    }

    async fn stands(
        &self,
        node: NodeId,
        asked: Vec<(TopicPartition, Option<Question>, Option<i64>)>,
        then: Then,
    ) -> Vec<Result<Stand, SendError>> {
        let partitions: Vec<(Arc<str>, i32)> = asked
            .iter()
            .map(|(to, _, _)| (Arc::clone(&to.topic), to.partition))
            .collect();
        let told = match self.client.describe_producers(node, &partitions).await {
            Ok(told) => told,
            // A broker that does not know the call: as if we had no right to ask.
            Err(crate::kafka::client::Error::Unsupported { .. }) => {
                return asked.iter().map(|_| Ok(Stand::Blind)).collect();
            }
            Err(error) => {
                let error = of_call(&error);
                return asked.iter().map(|_| Err(error.clone())).collect();
            }
        };
        let mut told = told.into_iter();
        let mut stands = Vec::with_capacity(asked.len());
        for (to, question, offset) in asked {
            let told = told.next();
            stands.push(match (question, told) {
                (None, _) => Ok(Stand::NoIdentity),
                (_, Some(Err(code))) if is_denied(code) => Ok(Stand::Blind),
                (_, Some(Err(code))) => {
                    self.client.forget_leader(&to.topic, to.partition);
                    Err(of_code(code, None))
                }
                (_, None) => Err(SendError::Retry(Cause::text(
                    "no answer for this partition",
                ))),
                (Some(question), Some(Ok(states))) => {
                    let place = place(&states, &question);
                    let asked = (place, question, offset);
                    self.decide(node, &to, asked, then).await
                }
            });
        }
        stands
    }

    /// What is known of leftovers without the right to ask. Where records are missing here, nobody
    /// knows how the sequences of the others count on. A log that ends before what it had confirmed
    /// has none of what comes behind that.
    async fn unasked(&self, node: NodeId, leftover: &Leftover) -> Result<Stand, SendError> {
        if leftover.holes {
            return Ok(Stand::Unidentified);
        }
        let to = &leftover.to;
        let Some(offset) = leftover.offset else {
            return Ok(Stand::Blind);
        };
        let end = self
            .client
            .list_offsets(node, &to.topic, to.partition, Which::Latest)
            .await
            .map_err(|e| of_call(&e))?;
        if end >= offset {
            return Ok(Stand::Blind);
        }
        let (topic, partition) = (&to.topic, to.partition);
        tracing::error!(%topic, partition, end, offset, "Kafka has lost what it had confirmed");
        Ok(Stand::There {
            records: 0,
            proven: false,
            offset: None,
        })
    }

    /// From what the leader said to where the records stand, with a look at the log where that must
    /// be.
    async fn decide(
        &self,
        node: NodeId,
        to: &TopicPartition,
        (place, question, offset): (Place, Question, Option<i64>),
        then: Then,
    ) -> Result<Stand, SendError> {
        let there = |records, proven, offset| Stand::There {
            records,
            proven,
            offset,
        };
        let place = match place {
            Place::There(records) if records < question.records || records == 0 => {
                return Ok(there(records, false, None));
            }
            Place::Behind(lost) => return Ok(Stand::Behind { lost }),
            place => place,
        };
        // To prove what the leader says, its end is enough: what was appended last is there.
        let tail = if matches!(place, Place::There(_)) {
            i64::try_from(question.records)
                .unwrap_or(TAIL_RECORDS)
                .min(TAIL_RECORDS)
                + PROOF_RECORDS
        } else {
            TAIL_RECORDS
        };
        let search = self.search(node, to, &question, (offset, tail));
        let found = match tokio::time::timeout(SEARCH_TIMEOUT, search).await {
            Ok(Ok(found)) => found,
            // It was just elected and is short of replicas, perhaps for long: what it remembers is
            // no proof. It knows the same bytes again; but nothing may go behind them yet.
            Ok(Err(SendError::Unknown(cause)))
                if cause.code == Some(OFFSET_NOT_AVAILABLE)
                    && matches!(place, Place::There(_))
                    && then == Then::Repeated =>
            {
                Found::NOTHING
            }
            Ok(Err(error @ (SendError::Retry(_) | SendError::Unknown(_) | SendError::Gone(_)))) => {
                return Err(error);
            }
            // May not read, or takes too long: what the leader said is all there is.
            Ok(Err(_)) | Err(_) => Found::NOTHING,
        };
        if matches!(place, Place::Forgotten) && found.whole {
            self.no_more_comes(node, to, found.end).await?;
        }
        let in_log = found.last.map(|last| (within(last.0, &question), last));
        Ok(match (place, in_log) {
            (Place::There(all), Some((Place::There(seen), last))) if seen == all => {
                there(all, true, offset_behind(&question, seen, last))
            }
            (Place::There(all), _) => there(all, false, None),
            (_, Some((Place::There(seen), last))) if seen > 0 => {
                there(seen, true, offset_behind(&question, seen, last))
            }
            (Place::Fenced, _) => Stand::Fenced,
            (_, _) if found.whole => there(0, true, None),
            _ => Stand::Unknown,
        })
    }

    /// The leader may have more than its replicas, ours among it: then it is not known yet.
    async fn no_more_comes(
        &self,
        node: NodeId,
        to: &TopicPartition,
        searched: i64,
    ) -> Result<(), SendError> {
        let end = self.client.log_end(node, &to.topic, to.partition).await;
        match end.map_err(|e| of_call(&e)) {
            Ok(end) if end > searched => Err(SendError::Retry(Cause::text(
                "the log's end is not replicated yet",
            ))),
            Err(error @ (SendError::Retry(_) | SendError::Unknown(_) | SendError::Gone(_))) => {
                Err(error)
            }
            // May not ask, or cannot.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Looks for batches of an identity, from `offset` or the log's tail to its end.
    async fn search(
        &self,
        node: NodeId,
        to: &TopicPartition,
        question: &Question,
        (offset, tail): (Option<i64>, i64),
    ) -> Result<Found, SendError> {
        let ends = async |which| {
            let offset = self
                .client
                .list_offsets(node, &to.topic, to.partition, which)
                .await;
            offset.map_err(|e| of_call(&e))
        };
        let first = ends(Which::Earliest).await?;
        let tail = ends(Which::Latest).await? - tail;
        let mut from = offset.unwrap_or(tail).max(first);
        // Where the search began is no later than where ours may begin.
        let mut whole = offset.is_some() || tail <= first;
        let looks = if offset.is_some() {
            LOOKS_FROM_OFFSET
        } else {
            LOOKS_FROM_TAIL
        };
        let mut last = None;
        for _ in 0..looks {
            let at = (&*to.topic, to.partition);
            let (headers, high_watermark) =
                match self.client.batch_headers(node, at, from, LOOK_BYTES).await {
                    Ok(answer) => answer,
                    // The log is another, or shorter than it was: what it has now is searched.
                    Err(crate::kafka::client::Error::Code { code, .. })
                        if code == OFFSET_OUT_OF_RANGE && from > first =>
                    {
                        (from, whole) = (first, true);
                        continue;
                    }
                    Err(error) => return Err(of_call(&error)),
                };
            let ours = headers.iter().rev().find(|header| {
                header.producer_id == question.producer_id && header.epoch == question.epoch
            });
            if let Some(header) = ours {
                last = Some((header.last_sequence, header.last_offset + 1));
            }
            match headers.last() {
                Some(header) if header.last_offset + 1 < high_watermark => {
                    from = header.last_offset + 1;
                }
                _ => {
                    return Ok(Found {
                        last,
                        whole,
                        end: high_watermark,
                    });
                }
            }
        }
        Ok(Found {
            last,
            whole: false,
            end: from,
        })
    }
}
