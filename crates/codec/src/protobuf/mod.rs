//! Kubernetes protobuf: the four bytes `k8s\0`, then a `runtime.Unknown` that holds the object's
//! message. proto2 rules as upstream's generated code applies them: a non-pointer field is written
//! even when zero, a pointer only when set, maps are sorted, inlined structs are sub-messages.

mod decode;
mod encode;
mod envelope;
mod wire;

pub use decode::decode_protobuf;
pub use encode::encode_protobuf_message;
pub use envelope::{ProtobufList, encode_protobuf, encode_watch_event_protobuf, frame_protobuf};

/// What every protobuf object begins with.
pub const PROTOBUF_MAGIC: &[u8; 4] = b"k8s\0";
