//! The generated rows.
//!
//! Written by `cargo xtask codegen` from the API's facts; do not edit.

pub(crate) mod described;
