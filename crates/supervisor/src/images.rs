//! `ironkeel image`: through the running cluster's socket, or on the store itself while it is down.
//!
//! One JSON line asks, JSON lines answer; the socket takes root alone (its mode, and the peer's
//! credentials). The CRI has no call for importing an archive, hence a socket of our own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use ironkeel_cri::v1::{ImageSpec, PullImageRequest};
use ironkeel_runtime::{ImageStore, Imported, Runtime};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::{Error, Instance};

/// Longest request line, in bytes.
const MAX_REQUEST_BYTES: u64 = 64 * 1024;

/// What to do with images.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageCommand {
    /// Import an OCI or docker archive.
    Import(PathBuf),
    /// Pull from a registry; needs the running cluster.
    Pull(String),
    /// List.
    List,
    /// Remove by name, digest or id.
    Remove(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Reply {
    Line(String),
    Failed { name: String, reason: String },
}

/// Runs a command and hands each line of its result to `print`.
pub fn run_image_command<'a>(
    instance: &'a Instance,
    command: ImageCommand,
    print: &'a mut dyn FnMut(&str),
) -> LocalBoxFuture<'a, Result<(), Error>> {
    Box::pin(ask(instance, command, print))
}

async fn ask(instance: &Instance, command: ImageCommand, print: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let Ok(stream) = UnixStream::connect(instance.image_socket()).await else {
        return offline(instance, command, print).await;
    };
    let path = instance.image_socket();
    let failed = |e: std::io::Error| Error::file("talking to", &path)(e);
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(&command).map_err(|e| failed(e.into()))?;
    line.push(b'\n');
    write.write_all(&line).await.map_err(failed)?;
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await.map_err(failed)? {
        match serde_json::from_str(&line).map_err(|e| failed(e.into()))? {
            Reply::Line(text) => print(&text),
            Reply::Failed { name, reason } => return Err(Error::Image { name, reason }),
        }
    }
    Ok(())
}

async fn offline(instance: &Instance, command: ImageCommand, print: &mut dyn FnMut(&str)) -> Result<(), Error> {
    if let ImageCommand::Pull(name) = command {
        let reason = format!("no cluster is running in {}; start it with `ironkeel up`", instance.dir.display());
        return Err(Error::Image { name, reason });
    }
    let dir = instance.dir.join("runtime");
    std::fs::create_dir_all(&dir).map_err(Error::file("creating", &dir))?;
    let store = Arc::new(ImageStore::open(&dir)?);
    let lines = on_store(&store, command).await?;
    lines.iter().for_each(|l| print(l));
    Ok(())
}

async fn on_store(store: &Arc<ImageStore>, command: ImageCommand) -> Result<Vec<String>, Error> {
    let failed = |name: &str, e: ironkeel_runtime::Error| Error::Image { name: name.to_owned(), reason: e.to_string() };
    match command {
        ImageCommand::Import(path) => {
            let name = path.display().to_string();
            let imported = store.import(&path).await.map_err(|e| failed(&name, e))?;
            let mut lines = Vec::new();
            for Imported { image, tags } in &imported {
                lines.extend(tags.iter().map(|tag| format!("imported {tag}")));
                if tags.is_empty() {
                    lines.push(format!("imported {}", image.id));
                }
            }
            Ok(lines)
        }
        ImageCommand::Remove(name) => {
            store.remove(&name).map_err(|e| failed(&name, e))?;
            Ok(vec![format!("removed {name}")])
        }
        ImageCommand::List => {
            let mut rows: Vec<String> = store
                .list()
                .iter()
                .flat_map(|r| {
                    let id = r.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
                    let names = if r.tags.is_empty() { r.digests.clone() } else { r.tags.clone() };
                    names
                        .into_iter()
                        .map(move |n| format!("{n:<50} {id}  {:>7.1} MiB", r.size as f64 / 1_048_576.0))
                        .collect::<Vec<_>>()
                })
                .collect();
            rows.sort();
            Ok(rows)
        }
        ImageCommand::Pull(name) => Err(Error::Image { name, reason: "needs the running cluster".into() }),
    }
}

/// Serves the socket until `shutdown`.
pub(crate) async fn serve(runtime: Arc<Runtime>, path: &Path, shutdown: CancellationToken) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::file("removing", path)(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(Error::file("listening on", path))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(Error::file("closing", path))?;
    tokio::spawn(async move {
        let accept = async {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(runtime.clone(), stream));
            }
        };
        shutdown.run_until_cancelled(accept).await;
    });
    Ok(())
}

async fn converse(runtime: Arc<Runtime>, stream: UnixStream) {
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0) {
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let limited = tokio::io::AsyncReadExt::take(read, MAX_REQUEST_BYTES);
    if BufReader::new(limited).read_line(&mut line).await.is_err() {
        return;
    }
    let outcome = match serde_json::from_str(&line) {
        Ok(ImageCommand::Pull(name)) => pull(&runtime, name).await,
        Ok(command) => on_store(runtime.images(), command).await,
        Err(e) => Err(Error::Image { name: "request".into(), reason: e.to_string() }),
    };
    let replies = match outcome {
        Ok(lines) => lines.into_iter().map(Reply::Line).collect(),
        Err(Error::Image { name, reason }) => vec![Reply::Failed { name, reason }],
        Err(other) => vec![Reply::Failed { name: "command".into(), reason: other.to_string() }],
    };
    for reply in replies {
        let Ok(mut bytes) = serde_json::to_vec(&reply) else { return };
        bytes.push(b'\n');
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn pull(runtime: &Arc<Runtime>, name: String) -> Result<Vec<String>, Error> {
    let spec = ImageSpec { image: name.clone(), ..ImageSpec::default() };
    let request = PullImageRequest { image: Some(spec), ..PullImageRequest::default() };
    match runtime.cri_client().image.pull_image(request).await {
        Ok(answer) => Ok(vec![format!("pulled {name} ({})", answer.into_inner().image_ref)]),
        Err(status) => Err(Error::Image { name, reason: status.message().to_owned() }),
    }
}
