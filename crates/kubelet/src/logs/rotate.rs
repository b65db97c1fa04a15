//! Rotation: a log that is too large is renamed, the runtime opens a new one, the oldest are deleted.

use std::{fs, path::Path, path::PathBuf, sync::Arc, time::Duration};

use crate::{kubelet::Kubelet, runtime::State};

/// How often sizes are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// Rotates logs until shutdown.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    loop {
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        if !any_too_large(kubelet.paths.logs(), kubelet.config.container_log_max_bytes, 0) {
            continue;
        }
        for container in kubelet.runtime.containers(None).await.unwrap_or_default() {
            let Ok(view) = kubelet.runtime.container(&container.id).await else { continue };
            let path = PathBuf::from(&view.log_path);
            let size = fs::metadata(&path).map(|metadata| metadata.len()).unwrap_or_default();
            if view.state != State::Running || size < kubelet.config.container_log_max_bytes {
                continue;
            }
            let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
            let old = PathBuf::from(format!("{}.{stamp}", path.display()));
            if let Err(error) = fs::rename(&path, &old) {
                tracing::warn!(path = %path.display(), %error, "log not rotated");
                continue;
            }
            if let Err(error) = kubelet.runtime.reopen_log(&view.id).await {
                tracing::warn!(id = view.id, %error, "the runtime did not reopen a log");
                // Writing goes on in the old file, under its old name.
                let _ = fs::rename(&old, &path);
                continue;
            }
            trim(&path, kubelet.config.container_log_max_files.saturating_sub(1));
        }
    }
}

/// Whether a log in the tree is over the limit: cheap enough to be asked of an idle node.
fn any_too_large(directory: &Path, limit: u64, depth: usize) -> bool {
    fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => depth < 2 && any_too_large(&entry.path(), limit, depth + 1),
        Ok(metadata) => metadata.len() >= limit && entry.path().extension().is_some_and(|extension| extension == "log"),
        Err(_) => false,
    })
}

fn predecessors(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)));
    let mut found: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn trim(path: &Path, keep: usize) {
    let found = predecessors(path);
    for old in found.iter().take(found.len().saturating_sub(keep)) {
        if let Err(error) = fs::remove_file(old) {
            tracing::debug!(path = %old.display(), %error, "old log not removed");
        }
    }
}

/// Deletes a log and its predecessors.
pub(crate) fn remove(path: &Path) {
    trim(path, 0);
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "log not removed");
    }
}
