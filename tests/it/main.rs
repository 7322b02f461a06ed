//! Tests of the whole gateway: the built binary, a real Kafka, foreign MQTT clients.
//!
//! In reading order: the harness, then what it was built to show. `docs/testing.md` says what each
//! test does and how to run one alone.
#![expect(clippy::unwrap_used, reason = "a test stops where it goes wrong")]

#[expect(dead_code, reason = "the stories below come one by one")]
mod harness;

mod kafka_client;
mod tools;
mod uplink;
