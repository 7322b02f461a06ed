//! What the user typed in `tidegate.toml` and the environment, checked and bounded once.
//!
//! `checked` is what the rest of the program sees.

pub mod checked;
