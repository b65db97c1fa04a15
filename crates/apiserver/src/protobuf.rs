//! Envelopes around messages that the cache holds ready-made.

/// The envelope of one object around its message.
pub(crate) fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    put(1, api_version.as_bytes(), &mut type_meta);
    put(2, kind.as_bytes(), &mut type_meta);
    let mut out = Vec::with_capacity(message.len() + type_meta.len() + 24);
    out.extend_from_slice(ironkeel_codec::PROTOBUF_MAGIC);
    put(1, &type_meta, &mut out);
    put(2, message, &mut out);
    put(3, b"", &mut out);
    put(4, b"", &mut out);
    out
}

/// A length-delimited field.
fn put(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    let mut n = bytes.len();
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend_from_slice(bytes);
}
