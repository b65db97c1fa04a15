//! A watch that is counted, not read: what a client costs must not hide what a server costs.
//!
//! TLS is undone by the same library as in the other rows; of HTTP/1.1 only as much is understood as
//! tells an event's line feed from the chunks' own.

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::api::Target;

/// Read at once, in bytes.
const BUFFER_BYTES: usize = 32 << 10;
/// Longest head of an answer, in bytes.
const HEAD_BYTES: usize = 16 << 10;

/// Where in a chunked body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the line that tells a chunk's length, which is so much up to here.
    Length(usize),
    /// In a chunk, of which so much is to come.
    Data(usize),
    /// In the line end behind a chunk.
    End,
}

/// One connection with a watch of JSON lines.
pub(crate) struct CountedWatch {
    stream: TlsStream<TcpStream>,
    at: At,
    seen: usize,
}

impl CountedWatch {
    /// Returns when the answer has begun.
    pub(crate) async fn open(target: &Target, path: &str) -> Result<CountedWatch> {
        let mut stream = target.stream().await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\naccept: application/json\r\n\r\n", target.address);
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        let body = loop {
            let mut piece = [0; 1024];
            let read = stream.read(&mut piece).await?;
            head.extend_from_slice(&piece[..read]);
            if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if read == 0 || head.len() > HEAD_BYTES {
                bail!("a watch is not answered");
            }
        };
        if !head.starts_with(b"HTTP/1.1 200") {
            bail!("a watch is refused: {}", String::from_utf8_lossy(&head));
        }
        let mut watch = CountedWatch { stream, at: At::Length(0), seen: 0 };
        watch.take(&head[body..]);
        Ok(watch)
    }

    /// Returns when so many events have come.
    pub(crate) async fn count(mut self, wanted: usize) -> Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.seen < wanted {
            match self.stream.read(&mut buffer).await? {
                0 => bail!("a watch ended early"),
                read => self.take(&buffer[..read]),
            }
        }
        Ok(())
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            match self.at {
                At::Length(length) => {
                    self.at = match (*first as char).to_digit(16) {
                        Some(digit) => At::Length(length * 16 + digit as usize),
                        None if *first == b'\n' => At::Data(length),
                        None => At::Length(length),
                    };
                    bytes = &bytes[1..];
                }
                At::Data(left) => {
                    let (data, rest) = bytes.split_at(left.min(bytes.len()));
                    self.seen += memchr::memchr_iter(b'\n', data).count();
                    self.at = if data.len() == left { At::End } else { At::Data(left - data.len()) };
                    bytes = rest;
                }
                At::End => {
                    if *first == b'\n' {
                        self.at = At::Length(0);
                    }
                    bytes = &bytes[1..];
                }
            }
        }
    }
}
