//! Streams to containers: remote command and port forward over WebSocket and SPDY.
//!
//! The server half of what `kubectl exec`, `attach`, `cp`, `run -it` and `port-forward` speak, as the CRI
//! asks of a runtime: `Exec`, `Attach` and `PortForward` answer with a URL, and whoever opens it (the
//! kubelet, for the API server, for the user) gets the streams.
//!
//! # For a container runtime
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use ironkeel_streaming::*;
//! # struct Runtime;
//! # #[async_trait::async_trait]
//! # impl Backend for Runtime {
//! #   async fn exec(&self, _: &ExecRequest, _: SessionIo) -> Result<ExitStatus, StreamError> { Ok(ExitStatus(0)) }
//! #   async fn attach(&self, _: &AttachRequest, _: SessionIo) -> Result<(), StreamError> { Ok(()) }
//! #   async fn port_forward(&self, _: &str, _: u16, _: PortStream) -> Result<(), StreamError> { Ok(()) }
//! # }
//! # async fn example(runtime: Arc<Runtime>) -> Result<(), StreamError> {
//! let shutdown = tokio_util::sync::CancellationToken::new();
//! let server = StreamingServer::start(runtime, shutdown).await?;
//! // In the CRI's Exec: a URL that works once, within TOKEN_TTL.
//! let url = server.exec_url(ExecRequest {
//!     container_id: "0123".into(),
//!     cmd: vec!["sh".into()],
//!     tty: true,
//!     stdin: true,
//!     stdout: true,
//!     stderr: false,
//! })?;
//! # Ok(()) }
//! ```
//!
//! [`Backend`] is the runtime's part. What it may rely on, and what it must keep:
//!
//! - [`SessionIo`] holds only the streams that the request asked for; with `tty`, stderr is `None`. Its
//!   ends are in-memory pipes of [`PIPE_BYTES`]: a write waits while the client is slow, and fails with
//!   `BrokenPipe` when the client has gone; stdin reads end of file when the client closes it or goes.
//! - `exec` returns the process's exit status **after** it has written everything and dropped stdout and
//!   stderr: the client is told the status when both are at their end. A task that keeps an end alive
//!   keeps the session open.
//! - `attach` returns when the container's streams end. It is dropped at its next await when the client
//!   leaves; so is `port_forward`. `exec` is not dropped: the process runs on as upstream's does, and
//!   [`SessionIo::disconnected`] says that nobody listens any more.
//! - [`SessionIo::resize`] gives the newest terminal size when it is read; sizes between are skipped.
//! - `port_forward` is called once for each forwarded connection, with a stream that can be half closed
//!   (`shutdown` ends only the direction to the client). Connect inside the sandbox's network namespace,
//!   set `TCP_NODELAY`, and end with [`tunnel`].
//! - An `Err` of `exec`/`attach` reaches the client as a `Status` with reason `InternalError`, of
//!   `port_forward` as text on the error stream. It does not end other forwarded connections.
//!
//! # For a proxy (kubelet, API server)
//!
//! [`proxy_upgrade`] sends an upgrade request on over a connection that the caller makes, and after the
//! `101` copies bytes both ways. [`spdy::Connection`] has the client's half of SPDY too, and
//! [`websocket::ByteTunnel`] turns a WebSocket of binary messages into a byte stream, which is what
//! `SPDY/3.1+portforward.k8s.io` carries. [`translate`] stands between a WebSocket client and a server that
//! speaks only SPDY.
//!
//! Not served: `v2`/`v3` names of the WebSocket protocol (there are none upstream), SPDY's flow control
//! (upstream has none, see [`spdy`]), `v5.channel.k8s.io` over SPDY.
//!
//! What does not live here: anything that knows a container, and authentication — the server listens on
//! loopback only, and the unguessable token is the permission.

mod backend;
mod error;
mod port_forward;
mod proxy;
mod remote_command;
mod server;
pub mod spdy;
mod spdy_command;
mod status;
mod token;
pub mod translate;
pub mod websocket;

pub use backend::{
    AttachRequest, Backend, ByteStream, ExecRequest, ExitStatus, InputStream, OutputStream, PortForwardRequest,
    PortStream, SessionIo, TerminalSize,
};
pub use error::StreamError;
pub use proxy::{ProxyBody, proxy_upgrade, tunnel};
pub use remote_command::PIPE_BYTES;
pub use server::{HEADER_TIMEOUT, LINGER, MAX_CONNECTIONS, STREAM_CREATION_TIMEOUT, StreamingServer};
pub use token::{MAX_PENDING_REQUESTS, TOKEN_TTL};
