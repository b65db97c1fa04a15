//! What holds between this server and others: addresses of Services, webhooks behind Services, and the
//! encodings that clients and servers speak.
#![allow(clippy::unwrap_used, missing_docs)]

mod addresses;
mod backends;
mod cbor;
mod likeness;
#[path = "../support/mod.rs"]
mod support;
