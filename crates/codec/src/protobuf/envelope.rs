//! What stands around a message: the envelope, lists of ready-made items, watch events, frames.

use ironkeel_object::Value;
use ironkeel_schema::{TypeId, type_by_name};

use super::wire::{BYTES, Message, put_bytes, put_message, put_tag, put_varint, varint_len};
use super::{PROTOBUF_MAGIC, encode_protobuf_message};
use crate::DecodeError;

/// A `runtime.Unknown`.
#[derive(Default)]
pub(super) struct Unknown<'a> {
    pub(super) api_version: &'a str,
    pub(super) kind: &'a str,
    pub(super) raw: &'a [u8],
    pub(super) content_encoding: &'a str,
    pub(super) content_type: &'a str,
}

impl<'a> Unknown<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut unknown = Unknown::default();
        let mut message = Message::new(bytes);
        while let Some((number, content)) = message.next_field()? {
            match number {
                1 => {
                    let mut type_meta = Message::new(content.bytes()?);
                    while let Some((number, content)) = type_meta.next_field()? {
                        match number {
                            1 => unknown.api_version = content.text()?,
                            2 => unknown.kind = content.text()?,
                            _ => {}
                        }
                    }
                }
                2 => unknown.raw = content.bytes()?,
                3 => unknown.content_encoding = content.text()?,
                4 => unknown.content_type = content.text()?,
                _ => {}
            }
        }
        Ok(unknown)
    }
}

/// What follows `raw`: an empty content encoding and content type.
const TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

fn put_head(api_version: &str, kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(PROTOBUF_MAGIC);
    put_message(1, out, |out| {
        put_bytes(1, api_version.as_bytes(), out);
        put_bytes(2, kind.as_bytes(), out);
    });
}

/// An object in its envelope; `apiVersion` and `kind` are the object's own.
pub fn encode_protobuf(value: &Value, type_id: TypeId) -> Vec<u8> {
    let text = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut out = Vec::with_capacity(512);
    put_head(text("apiVersion"), text("kind"), &mut out);
    put_message(2, &mut out, |out| encode_protobuf_message(value, type_id, out));
    out.extend_from_slice(TAIL);
    out
}

/// A list put together from the ready-made messages of its items (see
/// [`encode_protobuf_message`]), so that it can be streamed: [`ProtobufList::head`], then for each
/// item [`ProtobufList::item_head`] and the item, then [`ProtobufList::tail`].
#[derive(Debug)]
pub struct ProtobufList {
    head: Vec<u8>,
}

impl ProtobufList {
    /// Begins a list. `metadata` is the `ListMeta`; `item_lengths` are the lengths in bytes of all
    /// items, which the envelope has to announce.
    pub fn new(
        api_version: &str,
        kind: &str,
        metadata: Option<&Value>,
        item_lengths: impl Iterator<Item = usize>,
    ) -> Self {
        let mut meta = Vec::with_capacity(64);
        put_message(1, &mut meta, |out| {
            if let Some(list_meta) = type_by_name("meta/v1.ListMeta") {
                encode_protobuf_message(metadata.unwrap_or(&Value::Null), list_meta, out);
            }
        });
        let items: usize = item_lengths.map(|n| 1 + varint_len(n as u64) + n).sum();
        let mut head = Vec::with_capacity(128);
        put_head(api_version, kind, &mut head);
        put_tag(2, BYTES, &mut head);
        put_varint((meta.len() + items) as u64, &mut head);
        head.extend_from_slice(&meta);
        ProtobufList { head }
    }

    /// What goes before the first item.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// What goes before an item of this length.
    pub fn item_head(item_length: usize, out: &mut Vec<u8>) {
        put_tag(2, BYTES, out);
        put_varint(item_length as u64, out);
    }

    /// What goes after the last item.
    pub const fn tail() -> &'static [u8] {
        TAIL
    }
}

/// The message of a watch event; `kind` is `ADDED`, `MODIFIED`, …, and the object stands in its
/// full envelope (see [`encode_protobuf`]). On the wire it is framed: [`frame_protobuf`].
pub fn encode_watch_event_protobuf(kind: &str, object_envelope: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object_envelope.len() + kind.len() + 16);
    put_bytes(1, kind.as_bytes(), &mut out);
    let length = object_envelope.len() as u64;
    put_tag(2, BYTES, &mut out);
    put_varint(1 + varint_len(length) as u64 + length, &mut out);
    put_bytes(1, object_envelope, &mut out);
    out
}

/// A frame of a protobuf stream: four bytes of length, big endian, then the message.
pub fn frame_protobuf(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 4);
    out.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(message);
    out
}
