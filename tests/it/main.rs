//! Whole parts against foreign programs: one binary, a file a story.
#![allow(missing_docs)]

mod proxy;
mod sequences;
