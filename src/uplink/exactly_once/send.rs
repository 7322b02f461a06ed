//! The way out: batches become bytes once, and go in one request.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::ExactlyOnce;
use crate::kafka::batch::{BatchIdentity, Encoder, sequence};
use crate::kafka::client::{NodeId, ProduceAnswer, ProduceBatch, Road};
use crate::metrics::{Counter, Histogram};
use crate::record::{Digits, put};
use crate::spool::{Identity, Run, Taken};
use crate::uplink::error::{
    Cause, DUPLICATE_SEQUENCE_NUMBER, SendError, TOPIC_AUTHORIZATION_FAILED, of_call, of_code,
};
use crate::uplink::{Batch, Reply, Sent};

/// Encoders that are kept for the next request.
const ENCODERS_MAX: usize = 8;
/// Headers that say where a record comes from: gateway, run, number.
const PROVENANCE_HEADERS: u32 = 3;

impl ExactlyOnce {
    /// Sends what can be sent, and answers all.
    pub(super) async fn send_to(&self, node: NodeId, road: Road, batches: Vec<Batch>) -> Reply {
        let mut reply = Reply {
            answers: Vec::with_capacity(batches.len()),
            throttle: Duration::ZERO,
            took: Duration::ZERO,
            away: None,
        };
        let (batches, request) = self.prepare(batches, &mut reply);
        if batches.is_empty() {
            return reply;
        }
        let bytes: usize = request.iter().map(|part| part.records.len()).sum();
        let start = Instant::now();
        let result = self.client.produce(node, road, request).await;
        reply.took = start.elapsed();
        let add = |counter, n: usize| self.metrics.add(counter, u64::try_from(n).unwrap_or(0));
        add(Counter::ProduceRequests, 1);
        add(Counter::Batches, batches.len());
        add(
            Counter::BatchesRepeated,
            batches.iter().filter(|b| b.tries > 1).count(),
        );
        add(Counter::ProduceBytes, bytes);
        self.metrics
            .observe(Histogram::ProduceSeconds, reply.took, 1);
        match result {
            Ok((answers, throttle)) => {
                reply.throttle = throttle;
                add(Counter::Throttled, usize::from(!throttle.is_zero()));
                let mut answers = answers.into_iter();
                reply.answers.extend(batches.into_iter().map(|batch| {
                    let missing =
                        || Err(SendError::Unknown(Cause::text("no answer for this batch")));
                    let result = answers.next().map_or_else(missing, of_answer);
                    let result = result.map_err(|error| self.whose_epoch(&batch, error));
                    (batch, result)
                }));
            }
            Err(error) => {
                let error = of_call(&error);
                reply.away = Some(error.cause());
                let all = batches.into_iter().map(|batch| (batch, Err(error.clone())));
                reply.answers.extend(all);
            }
        }
        reply
    }

    /// 47 for records of an older run need be no other gateway: it is a later run of this one.
    fn whose_epoch(&self, batch: &Batch, error: SendError) -> SendError {
        match error {
            SendError::Fenced(cause) if self.identities.lock().was_passed(batch.taken.sent_as) => {
                SendError::OutOfOrder(cause)
            }
            error => error,
        }
    }

    /// Encodes what is not encoded; what cannot be sent is answered at once.
    fn prepare(&self, batches: Vec<Batch>, reply: &mut Reply) -> (Vec<Batch>, Vec<ProduceBatch>) {
        let mut ready = Vec::with_capacity(batches.len());
        let mut request = Vec::with_capacity(batches.len());
        let kept = self.encoders.lock().pop();
        let mut encoder = kept.unwrap_or_else(|| Encoder::new(self.settings.compression, None));
        let mut last: Option<(Run, Identity)> = None;
        for mut batch in batches {
            let to = &batch.taken.to;
            let Some((_, topic_id)) = self.client.leader(&to.topic, to.partition) else {
                let error = SendError::Retry(Cause::text("partition has no leader"));
                reply.answers.push((batch, Err(error)));
                continue;
            };
            let run = batch.taken.sent_as;
            if last.as_ref().is_none_or(|(known, _)| *known != run) {
                last = self
                    .identities
                    .lock()
                    .of(run)
                    .map(|identity| (run, identity.clone()));
            }
            let Some((_, identity)) = &last else {
                reply.answers.push((batch, Err(SendError::NoIdentity)));
                continue;
            };
            let records = match batch.encoded.clone() {
                Some(bytes) => bytes,
                None => match self.encode(&mut encoder, &batch.taken, identity) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        reply.answers.push((batch, Err(error)));
                        continue;
                    }
                },
            };
            batch.encoded = Some(records.clone());
            batch.tries = batch.tries.saturating_add(1);
            request.push(ProduceBatch {
                topic: Arc::clone(&to.topic),
                topic_id,
                partition: to.partition,
                records,
            });
            ready.push(batch);
        }
        let mut encoders = self.encoders.lock();
        if encoders.len() < ENCODERS_MAX {
            encoders.push(encoder);
        }
        (ready, request)
    }

    fn encode(
        &self,
        encoder: &mut Encoder,
        taken: &Taken,
        identity: &Identity,
    ) -> Result<Bytes, SendError> {
        let id = BatchIdentity {
            producer_id: identity.producer_id,
            epoch: identity.epoch,
            base_sequence: sequence(taken.sequence),
        };
        let records = taken.records.iter();
        let encoded = match &self.settings.provenance {
            None => encoder.encode(records, id, None),
            Some(gateway) => {
                let same = provenance(gateway, taken.run);
                let extra = |index: usize, out: &mut BytesMut| {
                    let number = taken.numbers.get(index).copied().unwrap_or_default();
                    out.put_slice(&same);
                    put(out, Some(Digits::new(number).text()));
                    PROVENANCE_HEADERS
                };
                encoder.encode(records, id, Some(&extra))
            }
        };
        // What cannot be encoded is no record: it is found by halving and put into quarantine.
        encoded.map_err(|error| SendError::Rejected(Cause::text(error.to_string()), Vec::new()))
    }
}

/// `tidegate.id`, `tidegate.run` and the name of `tidegate.seq`, as all records of a batch have
/// them.
fn provenance(gateway: &str, run: Run) -> BytesMut {
    let mut out = BytesMut::new();
    let run = run.to_string();
    let texts = ["tidegate.id", gateway, "tidegate.run", &run, "tidegate.seq"];
    for text in texts {
        put(&mut out, Some(text.as_bytes()));
    }
    out
}

fn of_answer(answer: ProduceAnswer) -> Result<Sent, SendError> {
    match answer.code {
        0 => Ok(Sent::Appended {
            base_offset: (answer.base_offset >= 0).then_some(answer.base_offset),
        }),
        DUPLICATE_SEQUENCE_NUMBER => Ok(Sent::AlreadyThere),
        TOPIC_AUTHORIZATION_FAILED => Err(of_code(
            TOPIC_AUTHORIZATION_FAILED,
            Some("no right to WRITE to this topic"),
        )),
        code => Err(match of_code(code, answer.message.as_deref()) {
            SendError::Rejected(cause, _) => {
                let blamed = answer.record_errors.into_iter();
                let blamed =
                    blamed.filter_map(|(index, words)| Some((usize::try_from(index).ok()?, words)));
                SendError::Rejected(cause, blamed.collect())
            }
            error => error,
        }),
    }
}
