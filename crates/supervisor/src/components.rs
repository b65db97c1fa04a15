//! The components of a cluster in one process: each gets a client with its own identity, and is
//! watched until the end.

use std::future::Future;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Running components; each ends with its token, in the reverse order of their start.
#[derive(Default)]
pub(crate) struct Components {
    tasks: JoinSet<(&'static str, Result<(), String>)>,
    stops: Vec<(&'static str, CancellationToken)>,
}

impl Components {
    /// Starts one; `run` gets the token that ends it.
    pub(crate) fn start<F, E>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        let stop = CancellationToken::new();
        self.stops.push((name, stop.clone()));
        let run = run(stop);
        self.tasks.spawn(async move { (name, run.await.map_err(|e| e.to_string())) });
    }

    /// Waits for a component that ends though nobody asked it to.
    pub(crate) async fn failed(&mut self) -> Error {
        match self.tasks.join_next().await {
            Some(Ok((component, outcome))) => {
                let reason = outcome.err().unwrap_or_else(|| "it ended by itself".to_owned());
                Error::Component { component, reason }
            }
            Some(Err(panic)) => Error::Component { component: "a component", reason: panic.to_string() },
            None => std::future::pending().await,
        }
    }

    /// Ends all, the last started first, and waits for them.
    pub(crate) async fn stop(mut self) {
        for (name, stop) in self.stops.iter().rev() {
            tracing::debug!(component = name, "stopping");
            stop.cancel();
        }
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok((component, Err(reason))) = ended {
                tracing::warn!(component, reason, "while stopping");
            }
        }
    }
}
