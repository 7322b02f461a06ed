//! What lies in the buffer: the spool's answers to tools, as JSON, page by page. Each answer is
//! made on a thread that may wait for the disk.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::{ApiState, error_with};
use crate::spool::StreamId;
use crate::spool::core::Spool;
use crate::spool::inspect::BadPlace;

/// Where a page begins, and what it is of.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    after: Option<String>,
    topic: Option<String>,
    partition: Option<i32>,
}

/// Why there is no answer.
pub(super) enum Refused {
    /// What was asked for makes no sense.
    Bad(String),
    /// There is no such thing.
    Missing(String),
    /// It could not be done.
    Failed(String),
}

impl From<BadPlace> for Refused {
    fn from(error: BadPlace) -> Self {
        Self::Bad(error.to_string())
    }
}

impl Wanted {
    /// The stream that is named; `None`: none is.
    fn stream(&self, spool: &Spool) -> Result<Option<StreamId>, Refused> {
        let (topic, partition) = match (&self.topic, self.partition) {
            (None, None) => return Ok(None),
            (Some(topic), Some(partition)) => (topic, partition),
            _ => return Err(Refused::Bad("name topic and partition, or none".to_owned())),
        };
        let found = spool.stream_id(topic, partition);
        let missing = || Refused::Missing(format!("no stream {topic}/{partition} is known"));
        found.map(Some).ok_or_else(missing)
    }
}

pub(super) async fn streams(State(state): State<Arc<ApiState>>) -> Response {
    answer(state, |spool| Ok(spool.streams())).await
}

pub(super) async fn ranges(
    State(state): State<Arc<ApiState>>,
    Query(wanted): Query<Wanted>,
) -> Response {
    answer(state, move |spool| {
        let stream = wanted.stream(spool)?;
        let stream = stream.ok_or_else(|| Refused::Bad("name topic and partition".to_owned()))?;
        Ok(spool.ranges(stream))
    })
    .await
}

pub(super) async fn records(
    State(state): State<Arc<ApiState>>,
    Query(wanted): Query<Wanted>,
) -> Response {
    answer(state, move |spool| {
        let stream = wanted.stream(spool)?;
        Ok(spool.records(stream, wanted.after.as_deref())?)
    })
    .await
}

pub(super) async fn check(
    State(state): State<Arc<ApiState>>,
    Query(wanted): Query<Wanted>,
) -> Response {
    answer(
        state,
        move |spool| Ok(spool.check(wanted.after.as_deref())?),
    )
    .await
}

pub(super) async fn ledger(
    State(state): State<Arc<ApiState>>,
    Query(wanted): Query<Wanted>,
) -> Response {
    answer(state, move |spool| {
        Ok(spool.ledger(wanted.topic.as_deref(), wanted.after.as_deref())?)
    })
    .await
}

pub(super) async fn quarantine(
    State(state): State<Arc<ApiState>>,
    Query(wanted): Query<Wanted>,
) -> Response {
    answer(state, move |spool| {
        Ok(spool.quarantine_page(wanted.after.as_deref())?)
    })
    .await
}

pub(super) async fn quarantined(
    State(state): State<Arc<ApiState>>,
    Path(id): Path<String>,
) -> Response {
    answer(state, move |spool| {
        let missing = || Refused::Missing(format!("no record {id} in quarantine"));
        spool.quarantined_record(&id).ok_or_else(missing)
    })
    .await
}

/// The spool's answer, or why there is none.
pub(super) async fn answer<T: Serialize + Send + 'static>(
    state: Arc<ApiState>,
    ask: impl FnOnce(&Spool) -> Result<T, Refused> + Send + 'static,
) -> Response {
    let Some(spool) = state.spool.get().cloned() else {
        return error_with(StatusCode::SERVICE_UNAVAILABLE, "the spool is not open");
    };
    match tokio::task::spawn_blocking(move || ask(&spool)).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(Refused::Bad(why))) => error_with(StatusCode::BAD_REQUEST, &why),
        Ok(Err(Refused::Missing(why))) => error_with(StatusCode::NOT_FOUND, &why),
        Ok(Err(Refused::Failed(why))) => error_with(StatusCode::INTERNAL_SERVER_ERROR, &why),
        Err(error) => error_with(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
