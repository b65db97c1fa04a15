//! Events that are too large go without their bodies, and batches are parted (upstream's truncate backend).

use std::sync::Arc;

use crate::event::{Event, Level};

/// `--audit-*-truncate-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// Longest event, in bytes.
    pub event_bytes: usize,
    /// Longest batch, in bytes.
    pub batch_bytes: usize,
}

impl Default for Truncate {
    fn default() -> Self {
        Truncate { event_bytes: 100 << 10, batch_bytes: 10 << 20 }
    }
}

const ANNOTATION: &str = "audit.k8s.io/truncated";

impl Truncate {
    /// The batches that the events make, and how many are too large whatever is left out.
    pub(crate) fn fit(self, events: &[Arc<Event>]) -> (Vec<Vec<Arc<Event>>>, u64) {
        let (mut batches, mut batch, mut batch_bytes, mut dropped) = (Vec::new(), Vec::new(), 0, 0);
        for event in events {
            let (mut event, mut bytes) = (event.clone(), event.to_line().len());
            if bytes > self.event_bytes && event.level >= Level::Request {
                let mut short = Event { request_object: None, response_object: None, ..Event::clone(&event) };
                short.annotations.insert(ANNOTATION.to_owned(), "true".to_owned());
                (bytes, event) = (short.to_line().len(), Arc::new(short));
            }
            if bytes > self.event_bytes {
                dropped += 1;
                continue;
            }
            if !batch.is_empty() && batch_bytes + bytes > self.batch_bytes {
                batches.push(std::mem::take(&mut batch));
                batch_bytes = 0;
            }
            batch_bytes += bytes;
            batch.push(event);
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        (batches, dropped)
    }
}
