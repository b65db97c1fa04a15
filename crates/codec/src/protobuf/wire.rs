//! protobuf's wire format: varints, tags, lengths. Reading never trusts a length.

use crate::DecodeError;

/// Wire types that occur.
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
const FIXED32: u8 = 5;

pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_tag(number: u32, wire: u8, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | u64::from(wire), out);
}

pub(super) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_tag(number, BYTES, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

pub(super) fn put_int(number: u32, value: i64, out: &mut Vec<u8>) {
    put_tag(number, VARINT, out);
    put_varint(value as u64, out);
}

/// Writes a sub-message whose length is known only afterwards: one byte is kept free for it, and
/// the rare longer length moves the message.
pub(super) fn put_message(number: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    put_tag(number, BYTES, out);
    let length_at = out.len();
    out.push(0);
    write(out);
    let length = out.len() - length_at - 1;
    if length < 0x80 {
        out[length_at] = length as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    put_varint(length as u64, &mut prefix);
    let extra = prefix.len() - 1;
    let end = out.len();
    out.resize(end + extra, 0);
    out.copy_within(length_at + 1..end, length_at + 1 + extra);
    out[length_at..=length_at + extra].copy_from_slice(&prefix);
}

/// A message being read.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    rest: &'a [u8],
}

/// What stands under a tag.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// 32 fixed bits, which no field of the API uses.
    Fixed32,
}

const CUT_SHORT: DecodeError = DecodeError::Protobuf("unexpected EOF");

impl<'a> Message<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Message { rest: bytes }
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (i, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { CUT_SHORT } else { DecodeError::Protobuf("integer overflow") })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next field, or `None` at the end.
    pub(super) fn next_field(&mut self) -> Result<Option<(u32, Content<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| DecodeError::Protobuf("illegal tag"))?;
        if number == 0 {
            return Err(DecodeError::Protobuf("illegal tag 0"));
        }
        let content = match (tag & 7) as u8 {
            VARINT => Content::Varint(self.varint()?),
            FIXED64 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(self.take(8)?);
                Content::Fixed64(u64::from_le_bytes(bytes))
            }
            BYTES => {
                let length = usize::try_from(self.varint()?).map_err(|_| CUT_SHORT)?;
                Content::Bytes(self.take(length)?)
            }
            FIXED32 => {
                self.take(4)?;
                Content::Fixed32
            }
            _ => return Err(DecodeError::Protobuf("illegal wire type")),
        };
        Ok(Some((number, content)))
    }
}

impl<'a> Content<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Content::Bytes(b) => Ok(b),
            _ => Err(DecodeError::Protobuf("wrong wireType")),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|e| DecodeError::Utf8 { offset: e.valid_up_to() })
    }

    pub(super) fn int(self) -> Result<i64, DecodeError> {
        match self {
            Content::Varint(v) => Ok(v as i64),
            _ => Err(DecodeError::Protobuf("wrong wireType")),
        }
    }
}
