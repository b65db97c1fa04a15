//! What goes on as long as an answer is streamed: gauges, counted watches, the audit log's last record.

use bytes::Bytes;
use ironkeel_fairness::Watched;

use crate::audit;
use crate::metrics::LongRunning;

/// Held by the stream of an answer; dropping it is the end of the request.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// The gauge of long-running requests.
    pub(crate) long: Option<LongRunning>,
    /// The watch, as writes count it.
    pub(crate) watched: Option<Watched>,
    /// The audit log.
    pub(crate) audit: Option<audit::Ending>,
}

impl Ending {
    /// Whether nothing has to be held.
    pub(crate) fn is_empty(&self) -> bool {
        self.long.is_none() && self.watched.is_none() && self.audit.is_none()
    }

    /// A piece goes out.
    pub(crate) fn chunk(&mut self, bytes: &Bytes) {
        if let Some(audit) = &mut self.audit {
            audit.chunk(bytes);
        }
    }
}
