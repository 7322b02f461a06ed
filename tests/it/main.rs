//! Tests of the whole gateway: the built binary, a real Kafka, foreign MQTT clients.
//!
//! In reading order: the harness, then what it was built to show. `docs/testing.md` says what each
//! test does and how to run one alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    reason = "a test stops where it goes wrong, and prints its figures"
)]

mod harness;

mod kafka_client;

mod security;

mod proxy;
mod sequences;

mod uplink;

mod tools;

mod access;
mod at_least_once;
mod bad_input;
mod check;
mod clients;

mod dead_letter;
mod dependencies;
mod device;
mod durable;
mod tidy;

mod road;

mod kill9;

mod killcalls;

mod frozen;

mod slow;

mod rights;

mod subscribers;

mod outage;

mod power;

mod blocks;

mod policies;

mod lanes;

mod buffer;

mod verify;

mod identity;
mod image;

mod listeners;
mod matrix;
mod sockets;

mod flapping;

mod foreign;

mod noise;

mod secrets;

mod clock;
mod full;

mod quiet;
