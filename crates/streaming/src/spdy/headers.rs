//! Header blocks: pairs of strings, compressed with one zlib stream a direction.

use std::collections::HashMap;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;

/// A header block's longest plain form, in bytes.
const MAX_BLOCK_BYTES: usize = 64 * 1024;

pub(super) struct HeaderReader(Decompress);

pub(super) struct HeaderWriter {
    zlib: Compress,
}

fn invalid(why: impl Into<String>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why.into())
}

impl HeaderReader {
    pub(super) fn new() -> Self {
        HeaderReader(Decompress::new(true))
    }

    pub(super) fn read(&mut self, mut block: &[u8]) -> std::io::Result<HashMap<String, String>> {
        let mut plain = vec![0; MAX_BLOCK_BYTES];
        let mut have = 0;
        while !block.is_empty() {
            let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress(block, &mut plain[have..], FlushDecompress::Sync);
            block = &block[(self.0.total_in() - before_in) as usize..];
            have += (self.0.total_out() - before_out) as usize;
            match result {
                Ok(Status::Ok) if have < plain.len() => {}
                Ok(Status::BufError) if block.is_empty() => break,
                Ok(_) => return Err(invalid("the header block is too long")),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|e| invalid(e.to_string()))?;
                }
                Err(error) => return Err(invalid(error.to_string())),
            }
        }
        parse(&plain[..have]).ok_or_else(|| invalid("the header block is not pairs of strings"))
    }
}

fn parse(mut plain: &[u8]) -> Option<HashMap<String, String>> {
    fn take<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (head, rest) = from.split_at_checked(count)?;
        *from = rest;
        Some(head)
    }
    fn text(from: &mut &[u8]) -> Option<String> {
        let length = u32::from_be_bytes(take(from, 4)?.try_into().ok()?) as usize;
        String::from_utf8(take(from, length)?.to_vec()).ok()
    }
    let pairs = u32::from_be_bytes(take(&mut plain, 4)?.try_into().ok()?);
    let mut headers = HashMap::new();
    for _ in 0..pairs {
        let name = text(&mut plain)?.to_ascii_lowercase();
        // Several values are separated by zeros; one is all that these streams have.
        let value = text(&mut plain)?;
        headers.insert(name, value.split('\0').next().unwrap_or_default().to_owned());
    }
    Some(headers)
}

impl HeaderWriter {
    pub(super) fn new() -> Self {
        let mut zlib = Compress::new(Compression::default(), true);
        // Refused only for a stream that has begun.
        let _ = zlib.set_dictionary(DICTIONARY);
        HeaderWriter { zlib }
    }

    pub(super) fn write(&mut self, pairs: &[(&str, &str)]) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        plain.extend_from_slice(&(pairs.len() as u32).to_be_bytes());
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        // Sync flushes add a few bytes to what deflate makes of so little.
        let mut block = Vec::with_capacity(plain.len() * 2 + 1024);
        self.zlib.compress_vec(&plain, &mut block, FlushCompress::Sync).map_err(std::io::Error::other)?;
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn blocks_share_one_compression_state() {
        let (mut writer, mut reader) = (HeaderWriter::new(), HeaderReader::new());
        let first = writer.write(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]).unwrap();
        // The dictionary's checksum, which every implementation of SPDY/3 begins with.
        assert_eq!(first[..6], [0x78, first[1], 0xe3, 0xc6, 0xa7, 0xc2]);
        assert_eq!(reader.read(&first).unwrap()["port"], "80");
        let second = writer.write(&[("StreamType", "error")]).unwrap();
        assert_eq!(reader.read(&second).unwrap()["streamtype"], "error");
        assert!(reader.read(b"nonsense").is_err());
    }
}
