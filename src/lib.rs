//! Tidegate: a gateway between MQTT devices and Kafka.
//!
//! Devices publish to the [`proxy`]; its routes turn messages into [`record`]s; the [`spool`]
//! numbers them per topic partition and keeps them safe; the [`uplink`] sends them to Kafka, each
//! once, with the thin client in [`kafka`]. `docs/architecture.md` has the map, the invariants and
//! what is absent.
//!
//! Imports point one way: {record, metrics, log, …} ← tls ← access ← kafka ← config ← spool ←
//! {proxy, uplink} ← api ← app ← cli. `tests/it/tidy.rs` holds it.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::string_slice))]

pub mod record;

pub mod mqtt_topic;

pub mod tls;

pub mod access;

pub mod kafka;

pub mod metrics;

pub mod backoff;
pub mod board;
pub mod clock;
pub mod log;
pub mod notify;
pub mod secret;

pub mod config;

pub mod spool;

pub mod proxy;

pub mod uplink;

pub mod api;

pub mod app;

pub mod cli;
