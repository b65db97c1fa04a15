//! JSON patch, merge patch, strategic merge patch, server-side apply: pure functions over trees.
//!
//! What does not live here: bytes (`codec` reads patches), and the check of the result against its
//! type (`codec::conform`, which the write path runs on every patched object).

pub mod apply;
mod error;
mod json;
mod merge;
mod shown;
mod strategic;
mod unstructured;

pub use apply::{
    ApplyError, ApplyOptions, Conflict, LAST_APPLIED, MAX_CONFLICT_BYTES, Others, Schema, Structure, apply,
    track_update,
};
pub use error::PatchError;
pub use json::json_patch;
pub use merge::merge_patch;
pub use shown::shown;
pub use strategic::strategic_merge;
pub use unstructured::from_unstructured;

/// Operations that one JSON patch may have, as upstream.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;
/// Bytes that the `copy` operations of one JSON patch may add together.
pub const MAX_JSON_PATCH_COPY_BYTES: usize = 3 << 20;
/// Values that the operations of one JSON patch may walk over or move aside: about a second's work. Ten thousand
/// operations on one container of some thousand members fit.
pub const MAX_JSON_PATCH_TOUCHED: usize = 100_000_000;
/// How deep a patched object may nest; the same as the codec reads.
pub const MAX_NESTING: usize = 400;
