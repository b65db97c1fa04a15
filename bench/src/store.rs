//! Commits of the embedded store: many writers, every batch synced. etcd's side is in `etcd`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use ironkeel_embedded::{Embedded, Options};
use ironkeel_store::{Condition, Store};

/// The load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Tasks that each wait for one commit before the next.
    pub(crate) writers: usize,
    /// Size of each value, in bytes.
    pub(crate) value_bytes: usize,
    /// How many keys each writer goes round.
    pub(crate) keys_per_writer: usize,
    /// How long.
    pub(crate) duration: Duration,
}

impl Default for Load {
    fn default() -> Load {
        Load { writers: 64, value_bytes: 1024, keys_per_writer: 100, duration: Duration::from_secs(5) }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commits {
    /// Durable writes a second.
    pub(crate) per_second: f64,
    /// Latency that 99 of 100 writes stay under.
    pub(crate) p99: Duration,
}

/// Runs the load on a new embedded store in `dir`, which must be on the disk to be measured.
pub(crate) async fn embedded(dir: &Path, load: Load) -> anyhow::Result<Commits> {
    let store = Embedded::open(dir, Options::default()).context("the store does not open")?;
    let commits = commits(store.clone(), load).await;
    store.close().await;
    commits
}

/// Runs the load on any engine.
pub(crate) async fn commits(store: Arc<dyn Store>, load: Load) -> anyhow::Result<Commits> {
    let value = Bytes::from(vec![b'x'; load.value_bytes]);
    let started = Instant::now();
    let writers: Vec<_> = (0..load.writers)
        .map(|writer| {
            let (store, value) = (store.clone(), value.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while started.elapsed() < load.duration {
                    let number = latencies.len() % load.keys_per_writer.max(1);
                    let key = Bytes::from(format!("/registry/bench/{writer:03}/{number:06}"));
                    let write = Instant::now();
                    store.put(key, value.clone(), Condition::Always, 0).await?;
                    latencies.push(write.elapsed());
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await.context("a writer panics")??);
    }
    Ok(Commits::of(latencies, started.elapsed()))
}

impl Commits {
    pub(crate) fn of(mut latencies: Vec<Duration>, elapsed: Duration) -> Commits {
        latencies.sort_unstable();
        let p99 = latencies.get(latencies.len() * 99 / 100).or(latencies.last()).copied().unwrap_or_default();
        Commits { per_second: latencies.len() as f64 / elapsed.as_secs_f64(), p99 }
    }
}
