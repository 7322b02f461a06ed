//! The gateway as a whole: what is started in which order, and stopped in which.
//!
//! Stopping, within `gateway.shutdown_timeout_ms`: the proxy takes no more messages; the spool
//! writes what is not safe, so that its senders are acknowledged; the connections close; the uplink
//! waits for the requests that are out; the spool stores its cursors; the API goes last. A second
//! signal stops at once: what was acknowledged is safe by then, always.

mod watchdog;

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiState, Listening};
use crate::clock::Clock;
use crate::config::ListenAddress;
use crate::config::checked::{ClockTrust, Config, Gateway};
use crate::metrics::{Gauge, Metrics};
use crate::notify::Notifier;
use crate::spool::core::Spool;
use crate::{proxy, uplink};

/// Most worker threads that are started when the config does not say.
const WORKERS_MAX: usize = 4;
/// How long a start waits for a gateway that was just killed to let go of the data folder.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_RETRY: Duration = Duration::from_millis(50);
/// Name of the file in the data folder that its user has locked.
const LOCK: &str = "lock";
/// How often the rates are looked at that foretell how long the disk lasts.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// Runs the gateway until SIGTERM or SIGINT; at SIGHUP it reads certificates and rules again.
///
/// # Errors
/// What kept it from starting: the data folder, the spool, an address. Nothing that happens later
/// ends it.
pub fn run(config: Config) -> anyhow::Result<()> {
    let _lock = lock(&config.gateway.data_dir)?;
    let runtime = runtime(&config.gateway).context("cannot start the runtime")?;
    let result = runtime.block_on(serve(config));
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Who has the data folder.
#[derive(Debug)]
pub enum Held {
    /// A gateway runs on it.
    ByAGateway,
    /// Nobody; no gateway starts on it while this lives.
    ByNobody(File),
}

/// Keeps gateways from starting on the data folder while it is looked at. Changes nothing in it.
///
/// # Errors
/// No gateway was ever started on it, or it may not be read; the error names the path.
pub fn lock_to_look(data_dir: &Path) -> anyhow::Result<Held> {
    let path = data_dir.join(LOCK);
    let name = path.display();
    let file = File::open(&path)
        .with_context(|| format!("{name}: no gateway has used this gateway.data_dir"))?;
    match file.try_lock_shared() {
        Ok(()) => Ok(Held::ByNobody(file)),
        Err(TryLockError::WouldBlock) => Ok(Held::ByAGateway),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {name}"))
        }
    }
}

/// Makes the data folder and takes it for this process, before anything in it is read: a second
/// gateway would cut what the first is writing as a torn tail.
///
/// # Errors
/// The folder cannot be made, or another process has it.
pub fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let name = data_dir.display();
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot make gateway.data_dir {name}"))?;
    let file = File::create(data_dir.join(LOCK))
        .with_context(|| format!("cannot write to gateway.data_dir {name}"))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_WAIT => {
                std::thread::park_timeout(LOCK_RETRY);
            }
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!("gateway.data_dir {name}: another tidegate uses it")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock gateway.data_dir {name}"));
            }
        }
    }
}

fn runtime(gateway: &Gateway) -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match gateway.worker_threads {
        0 => cores.min(WORKERS_MAX),
        threads => threads,
    };
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
}

/// What runs, and how each part is told to stop.
struct Running {
    spool: Spool,
    proxy: Option<(CancellationToken, JoinHandle<()>)>,
    uplink: (CancellationToken, JoinHandle<()>),
    rest: CancellationToken,
    /// Has the proxy read certificates and rules again.
    reload: Arc<Notify>,
    metrics: Arc<Metrics>,
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let timeout = config.gateway.shutdown_timeout;
    let running = start(config).await?;
    let notifier = Notifier::new(|name| std::env::var_os(name)).unwrap_or_else(|error| {
        tracing::warn!(%error, "the service manager is told nothing");
        None
    });
    if let Some(notifier) = notifier {
        serve_notified(&running, &notifier, &mut signals).await;
    } else {
        signals.end(&running.reload).await;
    }
    tracing::info!("stopping");
    let reload = Arc::clone(&running.reload);
    tokio::select! {
        () = running.stop() => tracing::info!("stopped"),
        () = tokio::time::sleep(timeout) => {
            tracing::warn!("stopped by the deadline; nothing is lost");
        }
        () = signals.end(&reload) => tracing::warn!("stopped at once; nothing is lost"),
    }
    Ok(())
}

/// Serves until a signal comes, and tells the service manager how it is.
async fn serve_notified(running: &Running, notifier: &Notifier, signals: &mut Signals) {
    let stop = CancellationToken::new();
    notifier.tell(&format!("READY=1\n{}", watchdog::status(&running.metrics)));
    let road = running.road();
    let feed = watchdog::feed(notifier, &road, &running.metrics, &stop);
    let told = async {
        signals.end(&running.reload).await;
        stop.cancel();
    };
    tokio::join!(feed, told);
    notifier.tell("STOPPING=1\nSTATUS=Makes safe what is in flight");
}

async fn start(config: Config) -> anyhow::Result<Running> {
    let data_dir = &config.gateway.data_dir;
    let metrics = Arc::new(Metrics::default());
    let clock = Arc::new(clock_of(&config.gateway));
    let folder = data_dir.join("spool");
    let spool = Spool::open_by(&config.spool, &folder, metrics.clone(), clock.clone())?;
    let counted = spool.clone();
    let state = Arc::new(ApiState::new(metrics.clone(), move || {
        counted.show_figures()
    }));
    state.set_spool(spool.clone());
    state.set_spool_open(true);
    let rest = CancellationToken::new();
    tokio::spawn(sample(spool.clone(), rest.clone()));
    tokio::spawn(watch_clock(
        clock,
        spool.clone(),
        metrics.clone(),
        rest.clone(),
    ));
    let mut listening = Listening::default();
    if let Some(config) = &config.api {
        let (address, _) = api::spawn(config, state.clone(), rest.clone())
            .await
            .with_context(|| format!("cannot listen on api.listen {}", config.listen))?;
        listening.api = Some(address);
    }
    let stop_uplink = CancellationToken::new();
    let outlet = Arc::new(spool.clone());
    let id = config.gateway.id.clone();
    let task = uplink::spawn(
        &config.kafka,
        &id,
        outlet,
        metrics.clone(),
        stop_uplink.clone(),
    );
    let mut proxy = None;
    let reload = Arc::new(Notify::new());
    if let Some(config) = &config.proxy {
        let stop = CancellationToken::new();
        let intake = Arc::new(spool.clone());
        let told = (stop.clone(), reload.clone());
        let running = proxy::spawn(config, intake, metrics.clone(), told)?;
        let all = running.addresses;
        listening.mqtt = all.iter().find_map(ListenAddress::tcp);
        listening.listeners = all.iter().map(ListenAddress::to_string).collect();
        state.set_clients(running.clients);
        proxy = Some((stop, running.task));
    }
    // First: who is told that it is ready may look for it.
    if let Err(error) = api::write_listening(data_dir, &listening) {
        tracing::warn!(%error, "cannot write which addresses were bound");
    }
    state.set_accepting(true);
    Ok(Running {
        spool,
        proxy,
        uplink: (stop_uplink, task),
        rest,
        reload,
        metrics,
    })
}

/// Takes note of how fast the buffer fills and drains.
async fn sample(spool: Spool, stop: CancellationToken) {
    loop {
        let spool = spool.clone();
        let sampled = tokio::task::spawn_blocking(move || spool.sample()).await;
        let wait = tokio::time::sleep(SAMPLE_EVERY);
        if sampled.is_err() || stop.run_until_cancelled(wait).await.is_none() {
            return;
        }
    }
}

fn clock_of(gateway: &Gateway) -> Clock {
    match (&gateway.clock_file, gateway.clock) {
        (Some(file), _) => Clock::system(Some(file)),
        (None, ClockTrust::Auto) => Clock::system(None),
        (None, ClockTrust::Trusted) => Clock::trusted(),
    }
}

/// Looks once a second whether the clock was put right, until it was.
async fn watch_clock(
    clock: Arc<Clock>,
    spool: Spool,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    while !clock.is_sure() {
        let second = tokio::time::sleep(Duration::from_secs(1));
        if stop.run_until_cancelled(second).await.is_none() {
            return;
        }
        if clock.check() {
            tracing::info!("the clock is synchronised");
            spool.clock_is_sure();
        }
    }
    metrics.set(Gauge::ClockSynchronised, 1);
}

impl Running {
    /// What must move while the gateway serves.
    fn road(&self) -> watchdog::Road {
        let mut tasks = vec![("the uplink's task", self.uplink.1.abort_handle())];
        let proxy = self.proxy.as_ref();
        tasks.extend(proxy.map(|(_, task)| ("the proxy's task", task.abort_handle())));
        watchdog::Road {
            spool: self.spool.clone(),
            tasks,
        }
    }

    async fn stop(self) {
        if let Some((stop, task)) = self.proxy {
            // What is in flight becomes safe at once, so that its senders are told.
            self.spool.hurry();
            stop.cancel();
            finished("proxy", task).await;
        }
        let (stop, task) = self.uplink;
        stop.cancel();
        finished("uplink", task).await;
        let spool = self.spool;
        finished("spool", tokio::task::spawn_blocking(move || spool.stop())).await;
        self.rest.cancel();
    }
}

async fn finished(part: &str, task: JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::error!(%error, part, "a part of the gateway has panicked");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the one that ends the gateway; SIGHUP has files of rules read again.
    async fn end(&mut self, reload: &Notify) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload.notify_one(),
            }
        }
    }
}
