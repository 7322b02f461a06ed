//! Whole parts against foreign programs: one binary, a file a story.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test stops where it goes wrong, and prints its figures"
)]

mod proxy;
mod sequences;
