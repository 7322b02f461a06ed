//! What takes something out of the buffer. The bodies must be JSON by their content type, which a
//! page in somebody's browser cannot send here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::ApiState;
use super::buffer::{Refused, answer};
use crate::spool::Run;
use crate::spool::core::HandError;

/// `POST /tidegate/drop`: numbers of one run of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drop {
    /// Kafka topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The run.
    pub run: u32,
    /// First number.
    pub first: u64,
    /// Number behind the last.
    pub end: u64,
}

/// `POST /tidegate/quarantine/drop` and `…/retry`: which records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ids {
    /// Their ids.
    pub ids: Vec<String>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Done {
    /// To how many records.
    pub records: u64,
}

impl From<HandError> for Refused {
    fn from(error: HandError) -> Self {
        match error {
            HandError::Missing(_) => Self::Missing(error.to_string()),
            HandError::Failed | HandError::NotSafe => Self::Failed(error.to_string()),
        }
    }
}

pub(super) async fn drop_range(
    State(state): State<Arc<ApiState>>,
    Json(wanted): Json<Drop>,
) -> Response {
    answer(state, move |spool| {
        let Drop {
            topic, partition, ..
        } = &wanted;
        let missing = || Refused::Missing(format!("no stream {topic}/{partition} is known"));
        let stream = spool.stream_id(topic, *partition).ok_or_else(missing)?;
        let range = (wanted.first, wanted.end);
        let records = spool.drop_by_hand(stream, Run(wanted.run), range)?;
        Ok(Done { records })
    })
    .await
}

pub(super) async fn quarantine_drop(
    State(state): State<Arc<ApiState>>,
    Json(wanted): Json<Ids>,
) -> Response {
    answer(state, move |spool| {
        let records = spool.quarantine_drop(&wanted.ids)?;
        Ok(Done { records })
    })
    .await
}

pub(super) async fn quarantine_retry(
    State(state): State<Arc<ApiState>>,
    Json(wanted): Json<Ids>,
) -> Response {
    answer(state, move |spool| {
        let records = spool.quarantine_retry(&wanted.ids)?;
        Ok(Done { records })
    })
    .await
}
