//! A thin Kafka client on `kafka-protocol`'s codecs. It knows nothing of the gateway.

mod admin;
pub mod batch;
mod call;
pub mod client;
mod compression;
mod connection;
mod log;
mod metadata;
pub mod partitioner;
mod pool;
mod produce;
mod producers;
pub mod security;
mod seek;
mod versions;

/// How the records of a batch are compressed
/// (<https://kafka.apache.org/documentation/#recordbatch>, attributes bits 0–2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// 0
    None,
    /// 1
    Gzip,
    /// 2
    Snappy,
    /// 3
    Lz4,
    /// 4
    #[default]
    Zstd,
}
