//! The CBOR reader.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ironkeel_object::{Key, Map, Number, Value};

use crate::{DecodeError, MAX_NESTING};

/// The head that ends an item of indefinite length.
const BREAK: u8 = 0xff;
/// Additional information of an item of indefinite length.
const INDEFINITE: u8 = 31;

const TAG_BASE64URL: u64 = 21;
const TAG_BASE64: u64 = 22;
const TAG_BASE16: u64 = 23;
const TAG_BIGNUMS: std::ops::RangeInclusive<u64> = 2..=3;

pub(super) fn read(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = Reader { bytes, at: 0, depth: 0 };
    let value = reader.item(None)?;
    match reader.at < bytes.len() {
        true => Err(DecodeError::Cbor("extraneous data after the first data item")),
        false => Ok(value),
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    depth: usize,
}

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], DecodeError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(DecodeError::Cbor("unexpected EOF"))?;
        let out = &self.bytes[self.at..end];
        self.at = end;
        Ok(out)
    }

    /// Major type, additional information and argument of the next item.
    fn head(&mut self) -> Result<(u8, u8, u64), DecodeError> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 0x1f);
        let wide = |bytes: &[u8]| bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let argument = match info {
            0..=23 => u64::from(info),
            24 => wide(self.take(1)?),
            25 => wide(self.take(2)?),
            26 => wide(self.take(4)?),
            27 => wide(self.take(8)?),
            INDEFINITE if (2..=5).contains(&major) => 0,
            _ => return Err(DecodeError::Cbor("invalid additional information")),
        };
        Ok((major, info, argument))
    }

    fn length(&self, argument: u64) -> Result<usize, DecodeError> {
        usize::try_from(argument).map_err(|_| DecodeError::Cbor("unexpected EOF"))
    }

    /// Elements cost at least `each` bytes: more than the rest can hold are refused before room is made.
    fn count(&self, argument: u64, each: usize) -> Result<usize, DecodeError> {
        let count = self.length(argument)?;
        if count.saturating_mul(each) > self.bytes.len() - self.at {
            return Err(DecodeError::Cbor("unexpected EOF"));
        }
        Ok(count)
    }

    /// One item; `tag` is the tag right before it.
    fn item(&mut self, tag: Option<u64>) -> Result<Value, DecodeError> {
        let (major, info, argument) = self.head()?;
        match major {
            0 => integer(i128::from(argument)),
            1 => integer(-1 - i128::from(argument)),
            2 => {
                let bytes = self.string(major, info, argument)?;
                match tag {
                    Some(TAG_BASE64URL) => Ok(URL_SAFE_NO_PAD.encode(bytes).into()),
                    Some(TAG_BASE64) => Ok(STANDARD.encode(bytes).into()),
                    Some(TAG_BASE16) => Ok(hex(&bytes).into()),
                    _ => Ok(text(&bytes)?.into()),
                }
            }
            3 => Ok(text(&self.string(major, info, argument)?)?.into()),
            4 => self.nested(|reader| reader.array(info, argument)),
            5 => self.nested(|reader| reader.map(info, argument)),
            6 if TAG_BIGNUMS.contains(&argument) => Err(DecodeError::Cbor("bignums are not allowed")),
            6 => self.nested(|reader| reader.item(Some(argument))),
            _ => self.simple(info, argument),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<Value, DecodeError>) -> Result<Value, DecodeError> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(DecodeError::TooDeep);
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// A string whole, or in chunks of its own kind.
    fn string(&mut self, major: u8, info: u8, argument: u64) -> Result<Cow<'b, [u8]>, DecodeError> {
        if info != INDEFINITE {
            let length = self.length(argument)?;
            return self.take(length).map(Cow::Borrowed);
        }
        let mut out = Vec::new();
        while !self.at_break()? {
            let (chunk, info, argument) = self.head()?;
            if chunk != major || info == INDEFINITE {
                return Err(DecodeError::Cbor("wrong element type in an indefinite-length string"));
            }
            let length = self.length(argument)?;
            out.extend_from_slice(self.take(length)?);
        }
        Ok(Cow::Owned(out))
    }

    /// Steps over a break, where there is one.
    fn at_break(&mut self) -> Result<bool, DecodeError> {
        let next = *self.bytes.get(self.at).ok_or(DecodeError::Cbor("unexpected EOF"))?;
        if next == BREAK {
            self.at += 1;
        }
        Ok(next == BREAK)
    }

    fn array(&mut self, info: u8, argument: u64) -> Result<Value, DecodeError> {
        let mut out = Vec::new();
        if info == INDEFINITE {
            while !self.at_break()? {
                out.push(self.item(None)?);
            }
        } else {
            let count = self.count(argument, 1)?;
            for _ in 0..count {
                out.push(self.item(None)?);
            }
        }
        Ok(Value::Array(out))
    }

    fn map(&mut self, info: u8, argument: u64) -> Result<Value, DecodeError> {
        let mut members: Vec<(Key, Value)> = Vec::new();
        let mut left = if info == INDEFINITE { usize::MAX } else { self.count(argument, 2)? };
        while left > 0 && !(info == INDEFINITE && self.at_break()?) {
            left -= 1;
            let (major, info, argument) = self.head()?;
            if !matches!(major, 2 | 3) {
                return Err(DecodeError::Cbor("map keys must be strings"));
            }
            let key = text(&self.string(major, info, argument)?)?.to_owned();
            let value = self.item(None)?;
            members.push((Key::Owned(key), value));
        }
        let (map, duplicates) = Map::from_unsorted(members);
        match duplicates.is_empty() {
            true => Ok(Value::Object(map)),
            false => Err(DecodeError::Cbor("found duplicate map key")),
        }
    }

    fn simple(&mut self, info: u8, argument: u64) -> Result<Value, DecodeError> {
        let float = match info {
            20 => return Ok(false.into()),
            21 => return Ok(true.into()),
            22 | 23 => return Ok(Value::Null),
            25 => half(argument as u16),
            26 => f64::from(f32::from_bits(argument as u32)),
            27 => f64::from_bits(argument),
            _ => return Err(DecodeError::Cbor("simple value is not recognized")),
        };
        if !float.is_finite() {
            return Err(DecodeError::Cbor("floating-point NaN and infinity are not allowed"));
        }
        Ok(Value::Number(Number::Float(float)))
    }
}

fn integer(n: i128) -> Result<Value, DecodeError> {
    i64::try_from(n).map(Value::from).map_err(|_| DecodeError::Cbor("integer does not fit 64 signed bits"))
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|e| DecodeError::Utf8 { offset: e.valid_up_to() })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char]).collect()
}

/// A 16-bit float.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f64::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}
