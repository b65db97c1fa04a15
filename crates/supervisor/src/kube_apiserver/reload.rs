//! Files that are read again when they change, without a restart: certificates, authorities, tokens,
//! keys, configurations. As upstream's dynamic certificates do when the kernel tells them nothing,
//! files are looked at now and then; what cannot be read or used is told once, and the old one stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

/// Time between two looks, in seconds (upstream's is a minute).
const LOOK_SECONDS: u64 = 10;

type Apply = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;
type Hash = [u8; 32];

/// Files that belong together, and what is done when one of them has changed.
struct Watched {
    what: &'static str,
    paths: Vec<PathBuf>,
    seen: Option<Hash>,
    told: String,
    apply: Apply,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Reload {
    watched: Vec<Watched>,
}

fn hash(paths: &[PathBuf]) -> Result<Hash, String> {
    let mut all = Sha256::new();
    for path in paths {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        all.update((bytes.len() as u64).to_be_bytes());
        all.update(&bytes);
    }
    Ok(all.finalize().into())
}

impl Reload {
    /// Calls `apply` when one of the files has changed; they have been read just now. A failure is
    /// tried again at the next look.
    pub(crate) fn watch(
        &mut self,
        what: &'static str,
        paths: impl IntoIterator<Item = PathBuf>,
        apply: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let apply = Arc::new(apply);
        self.watch_async(what, paths, move || {
            let apply = apply.clone();
            Box::pin(async move { apply() })
        });
    }

    /// As [`Reload::watch`], where taking over takes time.
    pub(crate) fn watch_async(
        &mut self,
        what: &'static str,
        paths: impl IntoIterator<Item = PathBuf>,
        apply: impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
    ) {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        if !paths.is_empty() {
            let seen = hash(&paths).ok();
            self.watched.push(Watched { what, paths, seen, told: String::new(), apply: Arc::new(apply) });
        }
    }

    /// Looks at all files once.
    async fn look(&mut self) {
        // Files that several watch are read once a group: they are few and small.
        for watched in &mut self.watched {
            let outcome = match hash(&watched.paths) {
                Ok(now) if watched.seen == Some(now) => continue,
                Ok(now) => (watched.apply)().await.map(|()| now),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(now) => {
                    watched.seen = Some(now);
                    watched.told.clear();
                    tracing::info!(what = watched.what, "a changed file was taken over");
                }
                Err(error) if error != watched.told => {
                    tracing::warn!(what = watched.what, error, "a changed file is not used; the one of before stays");
                    watched.told = error;
                }
                Err(_) => {}
            }
        }
    }

    /// Looks until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        if self.watched.is_empty() {
            return;
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(LOOK_SECONDS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if stop.run_until_cancelled(self.look()).await.is_none() {
                return;
            }
        }
    }
}

/// The text of a file, for errors with its name.
pub(crate) fn text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn a_change_is_applied_once_and_a_failure_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "1").unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut reload = Reload::default();
        let (into, from) = (seen.clone(), path.clone());
        reload.watch("a test", [path.clone()], move || {
            let now = text(&from)?;
            into.lock().push(now.clone());
            if now == "bad" { Err("bad".to_owned()) } else { Ok(()) }
        });
        reload.look().await;
        assert!(seen.lock().is_empty(), "nothing has changed");
        std::fs::write(&path, "2").unwrap();
        reload.look().await;
        reload.look().await;
        assert_eq!(*seen.lock(), ["2"]);
        std::fs::write(&path, "bad").unwrap();
        reload.look().await;
        reload.look().await;
        assert_eq!(*seen.lock(), ["2", "bad", "bad"]);
        std::fs::remove_file(&path).unwrap();
        reload.look().await;
        std::fs::write(&path, "3").unwrap();
        reload.look().await;
        assert_eq!(*seen.lock(), ["2", "bad", "bad", "3"]);
    }
}
