//! Between bytes and [`ironkeel_object::Value`]: JSON, YAML, Kubernetes protobuf, CBOR.
//!
//! All four are driven by the tables of `ironkeel_schema`; nobody types a field here. Decoding is
//! two steps: the bytes become a tree (names that the schema knows are borrowed from it), then
//! [`conform`] checks the tree against its type as Go's decoder would, canonicalizes the special
//! scalars and takes out what the type does not have, reporting it. Patches use the second step alone.
//! [`complete`] adds what Go would write besides.
//!
//! What does not live here: defaults and validation (`kinds`), patches (`patch`), and which kinds
//! there are (`schema`, or a CRD's structural schema).

mod cbor;
mod complete;
mod conform;
mod error;
mod format;
mod json;
mod path;
mod protobuf;
mod yaml;

pub use cbor::{decode_cbor, encode_cbor, encode_cbor_item};
pub use complete::complete;
pub use conform::conform;
pub use error::{DecodeError, MAX_PROBLEMS, Problem, ProblemKind};
pub use format::Format;
pub use json::{
    decode_json, decode_stored_json, encode_json, encode_json_pretty, parse_json, parse_json_strict, write_json_string,
};
pub use protobuf::{
    PROTOBUF_MAGIC, ProtobufList, decode_protobuf, encode_protobuf, encode_protobuf_message,
    encode_watch_event_protobuf, frame_protobuf,
};
pub use yaml::{decode_yaml, encode_yaml};

/// How deep objects and arrays may nest. Upstream stops at 10,000; no type of the API comes near
/// this, and trees of this depth can be walked recursively on any thread's stack.
pub const MAX_NESTING: usize = 400;
