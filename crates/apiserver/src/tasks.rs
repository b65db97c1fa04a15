//! Every task of one server, so that its stop leaves none behind: nothing may hold the registry, and
//! with it the store, once [`Tasks::end`] has returned.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// What is still running is dropped.
    ended: CancellationToken,
}

impl Tasks {
    /// Spawns what may finish while the server stops; the handle answers `None` where it took too long.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        self.tracker.spawn(self.ended.clone().run_until_cancelled_owned(work))
    }

    /// Spawns what is dropped wherever it stands as soon as `stop` is cancelled.
    pub(crate) fn until(&self, stop: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn(stop.clone().run_until_cancelled_owned(work));
    }

    /// Waits until the tasks have finished, for `grace` at most; those that are left are dropped.
    pub(crate) async fn end(&self, grace: Duration) {
        self.tracker.close();
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_err() {
            tracing::warn!(left = self.tracker.len(), "the server stops in the midst of requests");
        }
        self.ended.cancel();
        self.tracker.wait().await;
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    /// The streams of HTTP/2 connections.
    fn execute(&self, work: F) {
        self.spawn(crate::stalled::watched(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_what_finishes_and_drops_the_rest() {
        let tasks = Tasks::default();
        let (quick, stuck) =
            (tasks.spawn(tokio::time::sleep(Duration::from_secs(1))), tasks.spawn(std::future::pending::<()>()));
        let stop = CancellationToken::new();
        tasks.until(&stop, std::future::pending());
        stop.cancel();
        tasks.end(Duration::from_secs(2)).await;
        assert!(matches!(quick.await, Ok(Some(()))));
        assert!(matches!(stuck.await, Ok(None)));
    }
}
