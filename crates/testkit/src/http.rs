//! One HTTP/1.1 request on one connection: enough for what the tests ask, without TLS.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A server that says nothing for so long counts as gone.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that is not made for so long counts as refused.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Header lines, as they came.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The value of a header, if there is one.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|l| l.split_once(':'));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// Asks `server` in the network namespace of the calling thread.
pub fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method != "GET" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    // A server may answer and hang up before it has read a body that is too long.
    let written = stream.write_all(body);
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut piece);
        let over = !matches!(read, Ok(1..));
        if let Ok(n) = read {
            bytes.extend_from_slice(&piece[..n]);
        }
        // A server that keeps the connection open has answered all the same.
        if let Some(answer) = parse(&bytes, over) {
            return Ok(answer);
        }
        if over {
            written?;
            read?;
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the server hung up without an answer"));
        }
    }
}

/// Asks with GET.
pub fn get(server: SocketAddr, path: &str) -> std::io::Result<Answer> {
    request(server, "GET", path, &[], &[])
}

/// The answer in `bytes`, when it is whole; one without a length ends with the connection.
fn parse(bytes: &[u8], over: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer { status, head, body: String::new() };
    let body = &bytes[end + 4..];
    let chunked = answer.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    let length = answer.header("content-length").and_then(|l| l.parse::<usize>().ok());
    let whole = match length {
        Some(length) => body.len() >= length,
        None => chunked || over || status == 204 || status == 304,
    };
    if !whole {
        return None;
    }
    let body = if chunked { unchunk(body)? } else { body.to_vec() };
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Some(answer)
}

/// Puts chunks together; `None` when the last one did not come.
fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = bytes.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..line]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        bytes = &bytes[line + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_and_counted_bodies_are_read_and_torn_ones_refused() {
        let answer = |text: &str| parse(text.as_bytes(), false).map(|a| (a.status, a.body));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
        assert_eq!(answer(chunked), Some((200, "abcde".to_owned())));
        assert_eq!(answer(&chunked[..chunked.len() - 8]), None);
        assert_eq!(answer("HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno"), Some((404, "no".to_owned())));
        assert_eq!(answer("HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\nno"), None);
    }
}
