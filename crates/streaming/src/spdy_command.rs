//! Exec and attach over SPDY.
//!
//! Answers to the kubelet's `remotecommand/httpstream.go`: the client opens a stream for each of error,
//! stdin, stdout, stderr and (with a terminal, from version 3 on) resize, named by the header `streamtype`.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream};
use tokio_util::task::AbortOnDropHandle;

use crate::remote_command::{CHUNK_BYTES, RemoteCommand, Resizer, SizeSplitter, until_gone};
use crate::spdy::{Connection, SpdyStream, StreamWriter};
use crate::{Backend, STREAM_CREATION_TIMEOUT, status};

const V4: &str = "v4.channel.k8s.io";
const V1: &str = "channel.k8s.io";

/// The versions of the protocol that are served.
pub(crate) const PROTOCOLS: &[&str] = &[V4, "v3.channel.k8s.io", "v2.channel.k8s.io", V1];

/// Serves one remote command until it, or for an attach its client, has ended.
pub(crate) async fn serve<S>(socket: S, protocol: &'static str, command: RemoteCommand, backend: Arc<dyn Backend>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Connection::server(socket);
    let expected = expected(&command, protocol);
    let collect = collect_streams(&mut connection, &expected);
    let Ok(Some(mut streams)) = tokio::time::timeout(STREAM_CREATION_TIMEOUT, collect).await else {
        tracing::debug!("a remote command's client did not open its streams");
        return connection.close().await;
    };
    let mut take = |kind: &str| streams.remove(kind).map(SpdyStream::split);
    let (error, stdin, stdout, stderr, resize) =
        (take("error"), take("stdin"), take("stdout"), take("stderr"), take("resize"));

    let (io, ends) = command.pipes();
    let disconnected = ends.disconnected.clone();
    let ended = connection.ended();
    let inputs = AbortOnDropHandle::new(tokio::spawn({
        let disconnected = disconnected.clone();
        async move {
            let inputs = async {
                tokio::join!(read_stdin(stdin, ends.stdin), read_sizes(resize, ends.resize));
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = inputs => {}
                () = ended.cancelled() => disconnected.cancel(),
            }
        }
    }));
    let outputs = until_gone(&disconnected, async {
        tokio::join!(send_output(stdout, ends.stdout), send_output(stderr, ends.stderr));
    });
    let (status, ()) = tokio::join!(command.run(backend, io), outputs);
    if let Some((_, error)) = error {
        if let Some(status) = status::encode(&status, protocol == V4) {
            error.send(&status).await;
        }
        error.finish().await;
    }
    drop(inputs);
    connection.close().await;
}

/// The streams that the client has to open.
fn expected(command: &RemoteCommand, protocol: &str) -> Vec<&'static str> {
    let resize = command.tty() && protocol != V1 && protocol != "v2.channel.k8s.io";
    let all = [
        ("error", true),
        ("stdin", command.stdin()),
        ("stdout", command.stdout()),
        ("stderr", command.stderr()),
        ("resize", resize),
    ];
    all.into_iter().filter(|(_, wanted)| *wanted).map(|(kind, _)| kind).collect()
}

async fn collect_streams(
    connection: &mut Connection,
    expected: &[&'static str],
) -> Option<HashMap<&'static str, SpdyStream>> {
    let mut streams = HashMap::new();
    while streams.len() < expected.len() {
        let stream = connection.next_stream().await?;
        let kind = expected.iter().find(|kind| stream.header("streamtype") == Some(**kind));
        match kind {
            Some(kind) if !streams.contains_key(kind) => {
                stream.accept().await.ok()?;
                streams.insert(*kind, stream);
            }
            _ => stream.refuse().await,
        }
    }
    Some(streams)
}

type Halves = Option<(DuplexStream, StreamWriter)>;

async fn read_stdin(stream: Halves, stdin: Option<DuplexStream>) {
    let (Some((mut from, _writer)), Some(mut to)) = (stream, stdin) else { return };
    // A process that reads no more has had its input.
    let _ = tokio::io::copy(&mut from, &mut to).await;
    drop(to);
}

async fn read_sizes(stream: Halves, resizer: Resizer) {
    let Some((mut from, _writer)) = stream else { return };
    let mut sizes = SizeSplitter::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        sizes.push(&chunk[..length], &resizer);
    }
}

async fn send_output(stream: Halves, output: Option<DuplexStream>) {
    let (Some((_, to)), Some(mut from)) = (stream, output) else { return };
    to.copy_from(&mut from).await;
}
