//! Containers' logs: the CRI format read for users, and files rotated.

pub(crate) mod read;
pub(crate) mod rotate;
