//! A thin Kafka client on `kafka-protocol`'s codecs. It knows nothing of the gateway, and chooses
//! what other clients hide: producer id, epoch, sequence, and what is one batch. It never tries a
//! produce again by itself.
//!
//! [`client`] is what callers see; `produce`, `producers`, `log` and `admin` hold its calls, one
//! file a theme. `pool` keeps two connections a broker, [`security`] makes them safe, `seek` finds
//! a broker that answers and asks it for `metadata`. `call` is one request over one `connection`;
//! `versions` says in which version, `shape` whether the answer can be believed. [`batch`] makes
//! record batches with `compression`, [`unpack`] reads them; [`partitioner`] chooses their
//! partition.
//!
//! # Bounds
//! Connections: two a known broker and one for metadata. A connection's queue: 16 requests waiting,
//! 64 under way. Answers: `response_bytes_max`. Time: `connect_timeout`, then `request_timeout` an
//! answer. Metadata requests: one each `metadata_interval`.

mod admin;
pub mod batch;
mod call;
pub mod client;
mod compression;
mod connection;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod log;
mod metadata;
pub mod partitioner;
mod pool;
mod produce;
mod producers;
pub mod security;
mod seek;
mod shape;
pub mod unpack;
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

#[cfg(test)]
impl Compression {
    /// Every one, for tests that must hold for each.
    pub(crate) const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];
}
