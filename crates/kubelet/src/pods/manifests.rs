//! Static pods: manifests in a directory, watched with inotify, each with a uid from its content and the node.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Pod, Toleration};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sha2::{Digest, Sha256};
use tokio::{io::unix::AsyncFd, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{Error, error::FileContext, names};

/// A manifest larger than this is refused, bytes.
const MANIFEST_MAX_BYTES: u64 = 4 << 20;

/// Room for the kernel's events, which are only counted, bytes.
const EVENT_BUFFER_BYTES: usize = 4096;

/// The static pods, by uid.
pub(crate) type StaticPods = HashMap<String, Arc<Pod>>;

/// Keeps `pods` as the directory says, until shutdown.
pub(crate) async fn run(
    directory: PathBuf,
    node: String,
    pods: watch::Sender<Option<StaticPods>>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    std::fs::create_dir_all(&directory).file("creating", &directory)?;
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).file("watching", &directory)?;
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE;
    inotify.add_watch(&directory, flags).file("watching", &directory)?;
    let inotify = register(OwnedFd::from(inotify)).file("watching", &directory)?;
    loop {
        pods.send_replace(Some(read_all(&directory, &node)));
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ready = inotify.readable() => {
                let mut ready = ready.file("watching", &directory)?;
                // What changed does not matter: all is read again.
                let mut events = [0; EVENT_BUFFER_BYTES];
                let _ = nix::unistd::read(ready.get_inner(), &mut events);
                ready.clear_ready();
            }
        }
    }
}

#[allow(unsafe_code)]
fn register(descriptor: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the result, which nobody takes it out of: it stays open and the same file
    // until it is deregistered by being dropped.
    unsafe { AsyncFd::register(descriptor) }.map_err(|error| std::io::Error::other(error.to_string()))
}

fn read_all(directory: &Path, node: &str) -> StaticPods {
    let mut pods = StaticPods::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if hidden || !metadata.is_file() || metadata.len() > MANIFEST_MAX_BYTES {
            continue;
        }
        match std::fs::read(&path).file("reading", &path).and_then(|bytes| parse(&path, &bytes, node)) {
            Ok(pod) => {
                pods.insert(names::uid(&pod).to_owned(), Arc::new(pod));
            }
            Err(error) => tracing::warn!(%error, "static pod ignored"),
        }
    }
    pods
}

/// The pod of a manifest, with the names and annotations of a static pod on this node.
pub(crate) fn parse(path: &Path, bytes: &[u8], node: &str) -> Result<Pod, Error> {
    let refuse = |reason: String| Error::Manifest { path: path.to_owned(), reason };
    let value: serde_json::Value = serde_yaml_ng::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
    if value.get("kind").and_then(|kind| kind.as_str()) != Some("Pod") {
        return Err(refuse("kind is not Pod".into()));
    }
    // By way of text: code that reads a pod from a tree would be made for this one place. Where in the text it
    // stopped says nothing about the file.
    let told = |error: serde_json::Error| error.to_string().split(" at line ").next().unwrap_or_default().to_owned();
    let mut pod: Pod = serde_json::from_str(&value.to_string()).map_err(|error| refuse(told(error)))?;
    let Some(name) = pod.metadata.name.clone().filter(|name| !name.is_empty()) else {
        return Err(refuse("metadata.name is missing".into()));
    };
    let mut hasher = Sha256::new();
    for part in [node.as_bytes(), &[0], path.as_os_str().as_encoded_bytes(), &[0], bytes] {
        hasher.update(part);
    }
    let hash: String = hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    pod.metadata.name = Some(format!("{name}-{}", node.to_lowercase()));
    pod.metadata.namespace.get_or_insert_with(|| "default".into());
    pod.metadata.uid = Some(pod.metadata.uid.filter(|uid| !uid.is_empty()).unwrap_or_else(|| hash.clone()));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(names::CONFIG_SOURCE.into(), "file".into());
    annotations.insert(names::CONFIG_HASH.into(), hash);
    annotations.insert(names::CONFIG_SEEN.into(), jiff::Timestamp::now().to_string());
    let spec = pod.spec.as_mut().ok_or_else(|| refuse("spec is missing".into()))?;
    spec.node_name = Some(node.to_owned());
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Toleration::default()
    });
    Ok(pod)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node_with_a_stable_uid() {
        let text = b"apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: b}]}\n";
        let pod = parse(Path::new("/m/web.yaml"), text, "Node1").unwrap();
        assert_eq!(names::name(&pod), "web-node1");
        assert_eq!(names::uid(&pod), names::uid(&parse(Path::new("/m/web.yaml"), text, "Node1").unwrap()));
        assert!(names::is_static(&pod));
        assert!(parse(Path::new("/m/x"), b"kind: Service", "n").is_err());
        assert!(parse(Path::new("/m/x"), b"kind: Pod\nmetadata: {}\nspec: {containers: []}", "n").is_err());
    }
}
