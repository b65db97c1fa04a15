//! The runtime's side of the shim's socket.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::error::{Error, blocking};
use crate::shim::protocol::{MAX_FRAME_BYTES, Reply, Request, frame, read_reply, send};

/// A shim that does not answer for so long is broken.
const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(crate) struct ShimClient {
    socket: PathBuf,
}

impl ShimClient {
    pub(crate) fn new(socket: PathBuf) -> Self {
        ShimClient { socket }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// One question, one answer, on a connection of its own.
    pub(crate) async fn call(&self, request: Request) -> Result<Reply, Error> {
        Ok(self.open(request, Vec::new()).await?.0)
    }

    /// Like `call`, for requests whose connection goes on: it comes along, with what the shim sent.
    pub(crate) async fn open(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Reply, UnixStream, Vec<OwnedFd>), Error> {
        let path = self.socket.clone();
        let (reply, stream, received) = blocking(move || {
            let failed = || Error::path("talking to the shim at", &path);
            let mut stream = StdUnixStream::connect(&path).map_err(failed())?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed())?;
            let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            send(&mut stream, &frame(&request).map_err(failed())?, &raw).map_err(failed())?;
            // The other ends are the shim's now; ours would keep a pipe open.
            drop(fds);
            let mut received = Vec::new();
            let reply = read_reply(&mut stream, &mut received).map_err(failed())?;
            stream.set_nonblocking(true).map_err(failed())?;
            Ok((reply, stream, received))
        })
        .await?;
        if let Reply::Error { message } = reply {
            return Err(Error::Shim(message));
        }
        let stream = UnixStream::from_std(stream).map_err(Error::path("talking to the shim at", &self.socket))?;
        Ok((reply, stream, received))
    }
}

/// The next frame of a connection that goes on; none when the shim is gone.
pub(crate) async fn next_reply(stream: &mut UnixStream) -> Option<Reply> {
    let length = stream.read_u32().await.ok()? as usize;
    if length > MAX_FRAME_BYTES {
        return None;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    serde_json::from_slice(&body).ok()
}
