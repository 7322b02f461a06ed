//! The one task between the spool and an engine.
//!
//! Each turn: what is due is sent or asked again, then new records are taken as long as some broker
//! has room, then streams with leftovers are asked about. What comes while requests are out goes
//! together with the next. Tasks carry the requests; the pump itself never waits for anything but
//! news.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::doors::Doors;
use super::error::SendError;
use super::resume::Resumes;
use super::search::Searches;
use super::trouble::{Phase, Troubles, split};
use super::{Batch, Door, Engine, Reply, Stand};
use crate::backoff::{Backoff, Random};
use crate::config::checked::Kafka;
use crate::kafka::client::Road;
use crate::metrics::{Counter, Gauge, Metrics};
use crate::spool::outlet::TakeLimits;
use crate::spool::{Leftover, Outlet, StreamId, Taken, TopicPartition};

/// Requests' worth of records that may wait here for another try; beyond that nothing new is taken.
const HELD_REQUESTS: usize = 8;
/// Streams in one request.
const STREAMS_MAX: usize = 2_000;
/// A stream that fails for as long is stalled.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(5);
/// Longest sleep: bounds what a lost wake-up could cost.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What the pump takes from the config.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) batch_bytes_max: usize,
    pub(super) request_bytes_max: usize,
    pub(super) request_timeout: Duration,
    pub(super) backoff: Backoff,
    /// A stream that Kafka refuses for as long goes to the dead letter topic.
    pub(super) dead_letter_after: Option<Duration>,
}

impl Limits {
    pub(super) fn new(config: &Kafka) -> Self {
        Self {
            batch_bytes_max: config.batch_bytes_max,
            request_bytes_max: config.request_bytes_max,
            request_timeout: config.request_timeout,
            backoff: Backoff {
                first: config.retry_backoff.0,
                longest: config.retry_backoff.1,
            },
            dead_letter_after: config.dead_letter_after,
        }
    }
}

/// What a task brings back.
pub(super) enum Event {
    Started(Result<(), SendError>),
    Found(Vec<Arc<str>>, Result<(), SendError>),
    Sent(Door, Road, Reply),
    Asked(Vec<(Batch, Result<Stand, SendError>)>),
    Resumed(Vec<(Leftover, Result<Stand, SendError>)>),
    /// The stream's records went back to the spool.
    Stored(StreamId, Result<(), SendError>),
}

/// The pump.
pub(super) struct Pump<E> {
    pub(super) engine: Arc<E>,
    pub(super) outlet: Arc<dyn Outlet>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: Limits,
    pub(super) tasks: JoinSet<Event>,
    pub(super) doors: Doors,
    pub(super) troubles: Troubles,
    pub(super) resumes: Resumes,
    /// Streams that wait for a broker that has been away for long; the spool was told.
    pub(super) shut: HashMap<Door, HashSet<StreamId>>,
    /// Offset behind the last acknowledged record of a stream.
    pub(super) offsets: HashMap<StreamId, i64>,
    pub(super) searches: Searches,
    pub(super) random: Random,
    started: bool,
    start_out: bool,
    start_due: Instant,
    start_failures: u32,
    /// No connection was open, and none could be opened since.
    pub(super) lost: bool,
    pub(super) up: Option<bool>,
    /// When something was acknowledged last, or there was nothing to acknowledge.
    pub(super) progress: Instant,
    /// Failures since the last line in the log.
    pub(super) report: super::reply::Report,
}

impl<E: Engine> Pump<E> {
    pub(super) fn new(
        engine: Arc<E>,
        outlet: Arc<dyn Outlet>,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Self {
        let now = Instant::now();
        Self {
            engine,
            outlet,
            metrics,
            limits,
            tasks: JoinSet::new(),
            doors: Doors::new(limits.backoff),
            troubles: Troubles::default(),
            resumes: Resumes::default(),
            shut: HashMap::new(),
            offsets: HashMap::new(),
            searches: Searches::default(),
            random: Random::new(),
            started: false,
            start_out: false,
            start_due: now,
            start_failures: 0,
            lost: false,
            up: None,
            progress: now,
            report: super::reply::Report::default(),
        }
    }

    /// Runs until `shutdown`, then waits for what is out.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let outlet = Arc::clone(&self.outlet);
        loop {
            outlet.came_round();
            self.turn();
            let sleep = self.wake_at();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(done) = self.tasks.join_next() => self.joined(done),
                () = outlet.changed().notified() => {}
                () = tokio::time::sleep_until(sleep) => {}
            }
            while let Some(done) = self.tasks.try_join_next() {
                self.joined(done);
            }
        }
        let deadline = Instant::now() + self.limits.request_timeout;
        while self.doors.out() > 0 {
            match tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
                Ok(Some(done)) => self.joined(done),
                Ok(None) | Err(_) => break,
            }
        }
        self.tasks.abort_all();
        self.engine.close().await;
    }

    fn joined(&mut self, done: Result<Event, tokio::task::JoinError>) {
        match done {
            Ok(event) => self.handle(event),
            // The gateway ends.
            Err(error) if error.is_cancelled() => {}
            Err(error) => tracing::error!(%error, "uplink task ended badly"),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Started(result) => self.started(result),
            Event::Found(topics, result) => self.found(topics, &result),
            Event::Sent(door, road, reply) => self.replied(door, road, reply),
            Event::Asked(answers) => {
                for (batch, result) in answers {
                    self.asked(batch, result);
                }
            }
            Event::Resumed(answers) => self.resumed(answers),
            Event::Stored(stream, result) => self.stored(stream, result),
        }
    }

    fn turn(&mut self) {
        let now = Instant::now();
        self.judge(now);
        self.start(now);
        if self.started {
            self.again(now);
            self.fill(now);
            self.resume(now);
            self.find(now);
        }
    }

    /// Reaches the cluster: at first, and while nothing else shows that it is there. Brokers close
    /// idle connections too, so the last one closed is only a reason to ask.
    fn start(&mut self, now: Instant) {
        if self.start_out || self.start_due > now {
            return;
        }
        let doubtful = || self.up == Some(false) || !self.engine.connected();
        if self.started && !(self.doors.out() == 0 && doubtful()) {
            return;
        }
        self.start_out = true;
        let engine = Arc::clone(&self.engine);
        self.tasks
            .spawn(async move { Event::Started(engine.start().await) });
    }

    fn started(&mut self, result: Result<(), SendError>) {
        self.start_out = false;
        match result {
            Ok(()) => {
                if !self.started {
                    let guarantee = self.engine.guarantee();
                    tracing::info!(?guarantee, "uplink has reached Kafka");
                }
                self.started = true;
                self.lost = false;
                self.start_failures = 0;
                self.start_due = Instant::now() + self.limits.backoff.longest;
                self.doors.knock();
            }
            Err(error) => {
                self.lost = true;
                self.start_failures = self.start_failures.saturating_add(1);
                let wait = self
                    .limits
                    .backoff
                    .wait(self.start_failures, self.random.draw());
                self.start_due = Instant::now() + wait;
                self.report.failed("cannot reach Kafka", &error.cause());
            }
        }
    }

    /// Tells the spool whether Kafka answers.
    fn judge(&mut self, now: Instant) {
        if self.doors.out() == 0 && self.troubles.holding() == 0 {
            self.progress = now;
        }
        let starving = now.duration_since(self.progress) > self.limits.request_timeout;
        let up = self.started && !self.lost && self.doors.any_well() && !starving;
        if self.up != Some(up) {
            self.up = Some(up);
            self.outlet.uplink(up);
            self.metrics.set(Gauge::UplinkUp, u64::from(up));
            tracing::info!(up, "uplink");
        }
    }

    /// Sends or asks again what is due.
    fn again(&mut self, now: Instant) {
        if self.troubles.is_empty() {
            return;
        }
        for stream in self.troubles.due(Phase::Held, now) {
            if let Some(trouble) = self.troubles.get_mut(stream) {
                trouble.phase = Phase::Idle;
            }
        }
        self.again_in(Phase::Ask, now);
        self.again_in(Phase::Send, now);
    }

    fn again_in(&mut self, phase: Phase, now: Instant) {
        let mut groups: BTreeMap<(Door, bool), Resend> = BTreeMap::new();
        for stream in self.troubles.due(phase, now) {
            let Some(trouble) = self.troubles.get_mut(stream) else {
                continue;
            };
            let Some(batch) = &trouble.batch else {
                continue;
            };
            let slow = trouble.sick > 0 && phase == Phase::Send;
            let Some(door) = self.engine.door(&batch.taken.to) else {
                let to = batch.taken.to.clone();
                self.search(&to, stream, now);
                continue;
            };
            if !self.doors.is_open(door, road(slow), now) {
                continue;
            }
            let group = groups.entry((door, slow)).or_default();
            let full = group.0 + batch.size() > self.limits.request_bytes_max;
            if !group.1.is_empty() && full || slow && !joins(&mut group.2, trouble.sick) {
                continue;
            }
            group.0 += batch.size();
            trouble.phase = Phase::Out;
            group.1.extend(trouble.batch.take());
        }
        for ((door, slow), (_, batches, _)) in groups {
            if phase == Phase::Ask {
                let engine = Arc::clone(&self.engine);
                self.tasks
                    .spawn(async move { Event::Asked(engine.ask(door, batches).await) });
            } else {
                self.send(door, road(slow), batches);
            }
        }
    }

    fn send(&mut self, door: Door, road: Road, batches: Vec<Batch>) {
        self.doors.goes(door, road);
        if road == Road::Slow {
            self.metrics.add(Counter::ProduceRequestsApart, 1);
        }
        let engine = Arc::clone(&self.engine);
        self.tasks.spawn(async move {
            let reply = engine.send(door, road, batches).await;
            Event::Sent(door, road, reply)
        });
    }

    /// Takes new records while some broker has room for them.
    fn fill(&mut self, now: Instant) {
        let held_max = HELD_REQUESTS * self.limits.request_bytes_max;
        // The slow road counts only while someone is on it.
        let roads: &[Road] = if self.troubles.is_empty() {
            &[Road::Main]
        } else {
            &[Road::Main, Road::Slow]
        };
        while self.doors.any_open(roads, now)
            && (self.troubles.is_empty() || self.troubles.held_bytes() < held_max)
        {
            let (taken, Declined { lost, shut }) = self.take(now);
            for (to, stream) in lost {
                self.search(&to, stream, now);
            }
            for (door, stream) in shut {
                if self.shut.entry(door).or_default().insert(stream) {
                    self.outlet.stalled(stream, true);
                }
            }
            if taken.is_empty() {
                return;
            }
            let mut groups: BTreeMap<(Door, bool), Vec<Batch>> = BTreeMap::new();
            for taken in taken {
                let stream = taken.stream;
                let slow = self.troubles.get(stream).is_some_and(|it| it.sick > 0);
                let Some(door) = self.engine.door(&taken.to) else {
                    // Its leader was forgotten this very moment.
                    self.outlet.put_back(stream);
                    continue;
                };
                let group = groups.entry((door, slow)).or_default();
                group.push(self.batch(taken));
            }
            for ((door, slow), batches) in groups {
                self.send(door, road(slow), batches);
            }
        }
    }

    /// A batch of what was taken; what must not go with it stays here.
    fn batch(&mut self, taken: Taken) -> Batch {
        let stream = taken.stream;
        let offset = self.offsets.get(&stream).copied();
        let Some(trouble) = self.troubles.get_mut(stream) else {
            return Batch::new(taken, offset);
        };
        if trouble.blind.is_some_and(|(run, _)| taken.run > run) {
            trouble.blind = None;
            self.outlet.blind(stream, false);
        }
        let records = trouble.cut(&taken);
        let (first, rest) = split(taken, records);
        trouble.rest = rest;
        trouble.phase = Phase::Out;
        Batch::new(first, offset)
    }

    /// A broker answers again: its streams may fill the memory with what they have on disk.
    pub(super) fn reopen(&mut self, door: Door) {
        for stream in self.shut.remove(&door).into_iter().flatten() {
            if self.troubles.get(stream).is_none_or(|it| !it.stalled) {
                self.outlet.stalled(stream, false);
            }
        }
    }

    /// Takes what open doors have room for; and what was declined for good reason.
    fn take(&self, now: Instant) -> (Vec<Taken>, Declined) {
        let declined = RefCell::new(Declined::default());
        let any_well = self.doors.any_well();
        // How many go on each slow road, and how many may.
        let mut slow_given: HashMap<Door, (usize, usize)> = HashMap::new();
        let mut wanted = |stream: StreamId, to: &TopicPartition| {
            if to.partition < 0 {
                return false;
            }
            let trouble = self.troubles.get(stream);
            if trouble.is_some_and(|trouble| trouble.phase != Phase::Idle) {
                return false;
            }
            let Some(door) = self.engine.door(to) else {
                let lost = &mut declined.borrow_mut().lost;
                if lost.len() < STREAMS_MAX {
                    lost.push((to.clone(), stream));
                }
                return false;
            };
            if any_well && self.doors.is_away(door, STALLED_AFTER, now) {
                let shut = &mut declined.borrow_mut().shut;
                if shut.len() < STREAMS_MAX {
                    shut.push((door, stream));
                }
            }
            if let Some(company) = trouble.map(|it| it.sick).filter(|sick| *sick > 0) {
                return self.doors.is_open(door, Road::Slow, now)
                    && joins(slow_given.entry(door).or_default(), company);
            }
            self.doors.is_open(door, Road::Main, now)
        };
        let limits = TakeLimits {
            batch_bytes_max: self.limits.batch_bytes_max,
            streams_max: STREAMS_MAX,
            bytes_max: self.limits.request_bytes_max,
        };
        let taken = self.outlet.take(&limits, &mut wanted);
        (taken, declined.into_inner())
    }

    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let ahead = [
            self.doors.next_change(now),
            self.troubles.next_change(now),
            self.resumes.next_change(now),
            self.searches.next_change(),
            (!self.start_out && !self.started).then_some(self.start_due),
        ];
        let soonest = ahead.into_iter().flatten().filter(|at| *at > now).min();
        soonest.unwrap_or(now + SLEEP_MAX).min(now + SLEEP_MAX)
    }

    /// Puts records back into the spool, with a wait before they are wanted again.
    pub(super) fn hold(&mut self, stream: StreamId, wait: Duration) {
        self.outlet.put_back(stream);
        let trouble = self.troubles.entry(stream);
        trouble.batch = None;
        trouble.rest = None;
        trouble.phase = Phase::Held;
        trouble.due = Instant::now() + wait;
    }
}

/// Streams that could be taken, had they somewhere to go.
#[derive(Default)]
struct Declined {
    /// Without a leader.
    lost: Vec<(TopicPartition, StreamId)>,
    /// With one that has been away for long, while others answer.
    shut: Vec<(Door, StreamId)>,
}

/// Batches that go again together: their bytes, they themselves, and who may join on the slow road.
type Resend = (usize, Vec<Batch>, (usize, usize));

fn road(slow: bool) -> Road {
    if slow { Road::Slow } else { Road::Main }
}

/// Whether a sick stream that stands at most `company` streams joins those that are `given`
/// already.
pub(super) fn joins((given, most): &mut (usize, usize), company: usize) -> bool {
    let least = if *given == 0 {
        company
    } else {
        company.min(*most)
    };
    if *given >= least {
        return false;
    }
    (*given, *most) = (*given + 1, least);
    true
}
