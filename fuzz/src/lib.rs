//! What each target does with the fuzzer's bytes. A target fails by a panic: of the product, or of
//! an assertion here. Memory is bounded for each input, so that a length that is believed before
//! its bytes are there fails too.

pub mod config;
pub mod disk;
pub mod frames;
pub mod kafka_answers;
pub mod packets;
pub mod rules;
pub mod seeds;
pub mod topics;

use std::alloc::System;
use std::sync::Once;

use cap::Cap;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// A panic may take what it needs to say where it was.
static LIFT: Once = Once::new();

/// Runs `work`, which may take `bytes` more memory than there was before; an allocation beyond that
/// fails, and so ends the process.
fn within(bytes: usize, work: impl FnOnce()) {
    LIFT.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            MEMORY.set_limit(usize::MAX).expect("no limit is no limit");
            told(panic);
        }));
    });
    let limit = MEMORY.allocated().saturating_add(bytes);
    MEMORY.set_limit(limit).expect("more is free than is used");
    work();
    MEMORY.set_limit(usize::MAX).expect("no limit is no limit");
}
