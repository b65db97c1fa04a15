//! Watches: all on one stream to one member, made again elsewhere when it breaks.
//!
//! The hub's task (`session`) owns the stream and each watch's place in history; what it receives goes
//! into the watch's buffer (`buffer`), from which the caller reads. A watch that is resumed begins at
//! the first revision that its buffer has not seen, so nothing comes twice and nothing is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use ironkeel_store::{Revision, StoreError, WatchRange, WatchStream};
use tokio::sync::{mpsc, oneshot};

use crate::Shared;
use crate::freshness::Freshness;

mod buffer;
mod session;

use buffer::{Buffer, Reader};
use session::Watcher;

/// How long etcd may take to say where history begins, in milliseconds.
const EXPLANATION_WAIT_MS: u64 = 2_000;

/// What the hub's task is told.
pub(crate) enum Command {
    Start(u64, Box<Watcher>),
    /// The buffer is empty again.
    Resume(u64),
    Stop(u64),
    /// Watches with progress are to reach this revision.
    Wanted(Revision),
}

/// The handle of the task.
#[derive(Debug)]
pub(crate) struct Hub {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    next_id: AtomicU64,
}

impl Hub {
    pub(crate) fn start(shared: Arc<Shared>) -> Hub {
        let (commands, received) = mpsc::unbounded_channel();
        tokio::spawn(session::run(shared.clone(), received));
        Hub { shared, commands, next_id: AtomicU64::new(1) }
    }

    /// Returns once etcd has the watch, however long that takes.
    pub(crate) async fn watch(&self, range: WatchRange) -> Result<(Revision, WatchStream), StoreError> {
        let (now, from) = match range.from {
            // A member that lags would begin earlier.
            0 => {
                let now = Freshness::ask(&self.shared).await?;
                (now, now + 1)
            }
            from => (0, from),
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let buffer = Arc::new(Buffer::new(self.shared.config.watch_buffer_events));
        let (begun, beginning) = oneshot::channel();
        let start = self.shared.keys.outer(range.start);
        let end = self.shared.keys.outer(range.end);
        let watcher = Watcher::new(start, end, from, range.progress, range.previous, buffer.clone(), begun);
        let reader = Reader::new(id, buffer, self.commands.clone());
        let closed = || StoreError::Closed("the store was closed".to_owned());
        self.commands.send(Command::Start(id, Box::new(watcher))).map_err(|_| closed())?;
        let in_place = beginning.await.map_err(|_| closed())??;
        Ok((in_place.max(now), Box::pin(reader)))
    }

    /// Asks for progress up to a revision that the store has reached.
    pub(crate) fn wanted(&self, revision: Revision) {
        // A hub that has ended has no watches left to tell.
        let _ = self.commands.send(Command::Wanted(revision));
    }

    /// Where history begins, if that is after `revision`: a watch from there is refused with the number.
    pub(crate) async fn compacted_before(&self, revision: Revision) -> Option<Revision> {
        if revision == 0 {
            return None;
        }
        let ask = async {
            let range = WatchRange { start: Bytes::from_static(&[0]), from: revision, ..WatchRange::default() };
            match self.watch(range).await.ok()?.1.next().await? {
                Err(StoreError::Compacted { compacted, .. }) => Some(compacted),
                _ => None,
            }
        };
        tokio::time::timeout(Duration::from_millis(EXPLANATION_WAIT_MS), ask).await.ok()?
    }
}
