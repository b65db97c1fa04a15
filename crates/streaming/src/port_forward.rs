//! Port forward over SPDY, on a connection of its own or in a WebSocket's messages.
//!
//! Answers to the kubelet's `portforward/httpstream.go`: for each connection the client opens an error
//! and a data stream, paired by the header `requestID`; an error is text on the error stream.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::remote_command::PIPE_BYTES;
use crate::spdy::{Connection, SpdyStream};
use crate::{Backend, STREAM_CREATION_TIMEOUT};

/// The versions of the protocol that are served.
pub(crate) const PROTOCOLS: &[&str] = &["portforward.k8s.io"];
/// SPDY in WebSocket messages (KEP 4006).
pub(crate) const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// The streams of a connection that is not complete yet.
struct Half {
    since: Instant,
    data: Option<SpdyStream>,
    error: Option<SpdyStream>,
}

/// Serves connections to the sandbox's ports until the client has gone.
pub(crate) async fn serve<S>(socket: S, sandbox_id: String, backend: Arc<dyn Backend>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Connection::server(socket);
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let oldest = halves.iter().min_by_key(|(_, half)| half.since);
        let expiry = oldest.map(|(request, half)| (request.clone(), half.since + STREAM_CREATION_TIMEOUT));
        let expired = async {
            match expiry {
                Some((request, at)) => {
                    tokio::time::sleep_until(at).await;
                    request
                }
                None => std::future::pending().await,
            }
        };
        let stream = tokio::select! {
            stream = connection.next_stream() => stream,
            Some(_) = forwards.join_next() => continue,
            request = expired => {
                if let Some(half) = halves.remove(&request) {
                    for stream in [half.data, half.error].into_iter().flatten() {
                        stream.refuse().await;
                    }
                }
                continue;
            }
        };
        let Some(stream) = stream else { break };
        let Some((request, is_data, port)) = describe(&stream) else {
            stream.refuse().await;
            continue;
        };
        let half =
            halves.entry(request.clone()).or_insert_with(|| Half { since: Instant::now(), data: None, error: None });
        let place = if is_data { &mut half.data } else { &mut half.error };
        if place.is_some() {
            stream.refuse().await;
            continue;
        }
        if stream.accept().await.is_err() {
            break;
        }
        *place = Some(stream);
        if half.data.is_some() && half.error.is_some() {
            let pair = halves.remove(&request).and_then(|half| half.data.zip(half.error));
            let Some((data, error)) = pair else { continue };
            forwards.spawn(forward(data, error, port, sandbox_id.clone(), backend.clone()));
        }
    }
    drop(halves);
    forwards.shutdown().await;
    connection.close().await;
}

/// The request that a stream belongs to, whether it is its data, and the port.
fn describe(stream: &SpdyStream) -> Option<(String, bool, u16)> {
    let is_data = match stream.header("streamtype")? {
        "data" => true,
        "error" => false,
        _ => return None,
    };
    let port = stream.header("port")?.parse().ok().filter(|port| *port != 0)?;
    let request = match stream.header("requestid") {
        Some(request) => request.to_owned(),
        // Clients from before the header open a pair's error stream first, and its data stream next.
        None if is_data => format!("#{}", stream.id().checked_sub(2)?),
        None => format!("#{}", stream.id()),
    };
    Some((request, is_data, port))
}

async fn forward(data: SpdyStream, error: SpdyStream, port: u16, sandbox_id: String, backend: Arc<dyn Backend>) {
    let aborted = data.aborted();
    let (mut incoming, outgoing) = data.split();
    let (_, error) = error.split();
    let (theirs, ours) = tokio::io::duplex(PIPE_BYTES);
    let (mut from_backend, mut to_backend) = tokio::io::split(ours);
    let client_to_backend = async {
        if tokio::io::copy(&mut incoming, &mut to_backend).await.is_ok() {
            // A backend that has ended needs no end of file.
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut to_backend).await;
        }
        std::future::pending::<()>().await;
    };
    let backend_to_client = async {
        let forward = backend.port_forward(&sandbox_id, port, Box::new(theirs));
        tokio::join!(forward, outgoing.copy_from(&mut from_backend)).0
    };
    let result = tokio::select! {
        result = backend_to_client => result,
        () = client_to_backend => Ok(()),
        () = aborted.cancelled() => Ok(()),
    };
    if let Err(failure) = result {
        let message = format!("error forwarding port {port} to pod {sandbox_id}: {failure}");
        error.send(message.as_bytes()).await;
    }
    error.finish().await;
}
