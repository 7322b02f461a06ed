//! Any bytes as a broker's answer to each request that the client sends.
//!
//! input: API u8 (an index into those it knows) | version u8 | the answer behind its length

use bytes::Bytes;
use tidegate::kafka::fuzz;

/// What may be made of an answer: 64 KiB for a start, and so much for each of its bytes.
const MEMORY_BYTES: usize = 64 << 10;
const MEMORY_A_BYTE: usize = 64;

/// The target.
pub fn run(data: &[u8]) {
    let [api, version, answer @ ..] = data else {
        return;
    };
    let apis = fuzz::apis();
    let (key, versions) = &apis[usize::from(*api) % apis.len()];
    let count = i16::try_from(versions.clone().count()).unwrap_or(i16::MAX);
    let version = versions.start() + i16::from(*version) % count;
    let frame = Bytes::copy_from_slice(answer);
    super::within(MEMORY_BYTES + MEMORY_A_BYTE * answer.len(), || {
        let _believed = fuzz::answer(*key, version, frame);
    });
}
