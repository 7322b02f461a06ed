//! Finds a broker that answers, and asks it for metadata.
//!
//! One connection serves metadata and administration. When it is gone, the known brokers and then
//! the configured ones are tried, the next one a moment after the last, so that a black hole among
//! them costs that moment only. When none answers all brokers are forgotten: only the configured
//! ones are tried next.
//!
//! Askers for metadata put their topics on one list and wait in line; the first in line asks for
//! all that is on the list, and those behind it find their answer there, or its failure.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::protocol::{Request, StrBytes};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{Error, Inner, TopicMetadata};
use super::pool::Broker;
use super::versions::{Api, METADATA};

/// Time that a broker has for itself before the next one is tried too.
const HEAD_START: Duration = Duration::from_millis(500);
/// Known brokers that are tried before the configured ones.
const KNOWN_TRIED_MAX: usize = 5;
/// Brokers that are asked for metadata one after the other, when they break off.
const METADATA_TRIES: usize = 3;
/// Topics of one metadata request.
const TOPICS_A_REQUEST: usize = 1000;
/// Refreshes after which another broker is asked. One that is cut off from the controllers, but not
/// from us, would name the old leaders for ever.
const REFRESHES_A_BROKER: u32 = 8;
/// `REBOOTSTRAP_REQUIRED`
const REBOOTSTRAP_REQUIRED: i16 = 129;

/// How the search for brokers and metadata stands.
#[derive(Debug, Default)]
pub(super) struct Seek {
    admin: tokio::sync::Mutex<Admin>,
    line: tokio::sync::Mutex<Line>,
    wanted: Mutex<HashSet<Arc<str>>>,
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Admin {
    broker: Option<Arc<Broker>>,
    failed: Option<(Instant, String)>,
}

#[derive(Debug, Default)]
struct Line {
    last_asked: Option<Instant>,
    answered: Option<Instant>,
    failed: Option<(Instant, String)>,
    refreshes: u32,
}

impl Inner {
    /// The connection for metadata and administration.
    pub(super) async fn admin(&self) -> Result<Arc<Broker>, Error> {
        let asked = Instant::now();
        let mut admin = self.seek.admin.lock().await;
        self.check_open()?;
        if let Some(broker) = admin.broker.as_ref().filter(|b| b.is_usable()) {
            return Ok(Arc::clone(broker));
        }
        admin.broker = None;
        if let Some((when, text)) = &admin.failed
            && *when >= asked
        {
            return Err(Error::NoBroker(text.clone()));
        }
        match self.race(self.candidates()).await {
            Ok(broker) => {
                admin.broker = Some(Arc::clone(&broker));
                Ok(broker)
            }
            Err(text) => {
                self.metadata.lock().forget_brokers();
                admin.failed = Some((Instant::now(), text.clone()));
                Err(Error::NoBroker(text))
            }
        }
    }

    /// Asks whichever broker answers.
    pub(super) async fn ask_any<R: Request>(
        &self,
        api: &Api,
        request: &R,
    ) -> Result<R::Response, Error> {
        let broker = self.admin().await?;
        let version = broker.versions.pick(api)?;
        broker.connection.call(api, version, request).await
    }

    /// Whether the connection for metadata is open, or being opened.
    pub(super) fn admin_is_open(&self) -> bool {
        match self.seek.admin.try_lock() {
            Ok(admin) => admin.broker.as_ref().is_some_and(|it| it.is_open()),
            Err(_) => true,
        }
    }

    pub(super) async fn close_admin(&self) {
        if let Some(broker) = self.seek.admin.lock().await.broker.take() {
            broker.connection.close("the client is closed");
        }
    }

    /// Whom to try, the one to try first at the end.
    fn candidates(&self) -> Vec<Arc<str>> {
        let mut all = self.metadata.lock().addresses();
        all.sort_unstable();
        let turn = self.seek.turn.fetch_add(1, Ordering::Relaxed);
        if !all.is_empty() {
            let by = turn % all.len();
            all.rotate_left(by);
        }
        all.truncate(KNOWN_TRIED_MAX);
        for configured in &self.config.bootstrap_servers {
            if all.iter().all(|known| **known != **configured) {
                all.push(configured.as_str().into());
            }
        }
        all.reverse();
        all
    }

    /// The first that answers, or why none does.
    async fn race(&self, mut candidates: Vec<Arc<str>>) -> Result<Arc<Broker>, String> {
        let mut running = JoinSet::new();
        let mut reasons = Vec::new();
        loop {
            if let Some(address) = candidates.pop() {
                let dialer = Arc::clone(&self.dialer);
                running.spawn(async move { dialer.dial(&address).await });
            }
            let wait = if candidates.is_empty() {
                self.config.connect_timeout * 2 // dialling ends by itself before that
            } else {
                HEAD_START
            };
            match timeout(wait, running.join_next()).await {
                Ok(Some(Ok(Ok(broker)))) => return Ok(broker),
                Ok(Some(Ok(Err(error)))) => reasons.push(error.to_string()),
                Ok(Some(Err(error))) => reasons.push(error.to_string()),
                Ok(None) => return Err(reasons.join("; ")),
                Err(_) => {}
            }
        }
    }

    /// See [`super::client::Client::topics`].
    pub(super) async fn topics(
        &self,
        names: &[Arc<str>],
        refresh: bool,
    ) -> Result<Vec<TopicMetadata>, Error> {
        let asked = Instant::now();
        if !refresh && let Some(known) = self.known(names, None) {
            return Ok(known);
        }
        self.seek.wanted.lock().extend(names.iter().cloned());
        let mut line = self.seek.line.lock().await;
        if line.answered.is_some_and(|when| when >= asked)
            && let Some(known) = self.known(names, Some(asked))
        {
            return Ok(known);
        }
        if let Some((when, text)) = &line.failed
            && *when >= asked
        {
            return Err(Error::NoBroker(text.clone()));
        }
        if let Some(last) = line.last_asked {
            sleep_until(last + self.config.metadata_interval).await;
        }
        line.refreshes += u32::from(refresh);
        if line.refreshes >= REFRESHES_A_BROKER {
            line.refreshes = 0;
            // Who still waits for an answer there holds the connection.
            self.seek.admin.lock().await.broker = None;
        }
        // Again: who was first in line before may have gone with them.
        self.seek.wanted.lock().extend(names.iter().cloned());
        let wanted: Vec<_> = self.seek.wanted.lock().drain().collect();
        let began = Instant::now();
        line.last_asked = Some(began);
        if let Err(error) = self.ask_for(&wanted).await {
            line.failed = Some((began, error.to_string()));
            return Err(error);
        }
        line.answered = Some(began);
        self.known(names, Some(asked))
            .ok_or_else(|| Error::NoBroker("the answer lacks a topic that was asked for".into()))
    }

    fn known(&self, names: &[Arc<str>], since: Option<Instant>) -> Option<Vec<TopicMetadata>> {
        let metadata = self.metadata.lock();
        names
            .iter()
            .map(|name| metadata.topic(name, since))
            .collect()
    }

    async fn ask_for(&self, wanted: &[Arc<str>]) -> Result<(), Error> {
        if wanted.is_empty() {
            return self.ask_for_some(wanted).await;
        }
        for some in wanted.chunks(TOPICS_A_REQUEST) {
            self.ask_for_some(some).await?;
        }
        Ok(())
    }

    async fn ask_for_some(&self, names: &[Arc<str>]) -> Result<(), Error> {
        let topic = |name: &Arc<str>| {
            let name = StrBytes::from_string(name.to_string());
            MetadataRequestTopic::default().with_name(Some(name.into()))
        };
        let request = MetadataRequest::default()
            .with_topics(Some(names.iter().map(topic).collect()))
            .with_allow_auto_topic_creation(false);
        let mut tries = 0;
        loop {
            tries += 1;
            let asked = Instant::now();
            match self.ask_any(&METADATA, &request).await {
                Ok(answer)
                    if answer.error_code == REBOOTSTRAP_REQUIRED && tries < METADATA_TRIES =>
                {
                    self.metadata.lock().forget_brokers();
                    self.close_admin().await;
                }
                Ok(answer) if answer.error_code != 0 => {
                    return Err(Error::Code {
                        what: "ask for metadata",
                        code: answer.error_code,
                    });
                }
                Ok(answer) => {
                    let mut metadata = self.metadata.lock();
                    metadata.update(&answer, asked);
                    self.pool.keep(|node| metadata.knows(node));
                    return Ok(());
                }
                Err(Error::Lost { .. } | Error::Connect { .. } | Error::Malformed { .. })
                    if tries < METADATA_TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests;
