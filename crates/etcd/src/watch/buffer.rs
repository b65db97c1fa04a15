//! What waits for one watch's reader: bounded, whatever the reader does.
//!
//! When it is full the hub gives the watch up at etcd and starts it again, from the first revision that
//! is missing here, once the reader has taken everything. So a slow reader costs etcd a second reading
//! of its history, and loses nothing unless that history is compacted meanwhile.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::task::AtomicWaker;
use ironkeel_store::{Event, Revision, StoreError, WatchItem};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Command;

/// Most bytes of values that wait for one reader.
const BUFFER_BYTES: usize = 64 << 20;

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<WatchItem>,
    events: usize,
    bytes: usize,
    /// The hub waits for this to be empty.
    paused: bool,
    end: Option<StoreError>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Buffer {
    queue: Mutex<Queue>,
    reader: AtomicWaker,
    limit_events: usize,
}

fn size(events: &[Event]) -> usize {
    events.iter().map(|e| e.kv.value.len() + e.previous.as_ref().map_or(0, |kv| kv.value.len())).sum()
}

impl Buffer {
    pub(crate) fn new(limit_events: usize) -> Buffer {
        Buffer { queue: Mutex::default(), reader: AtomicWaker::new(), limit_events }
    }

    /// Takes events; answers whether it is full now, and then wants no more until it is empty.
    pub(crate) fn events(&self, events: Vec<Event>) -> bool {
        let mut queue = self.queue.lock();
        queue.events += events.len();
        queue.bytes += size(&events);
        queue.items.push_back(WatchItem::Events(events));
        queue.paused = queue.events >= self.limit_events || queue.bytes >= BUFFER_BYTES;
        let full = queue.paused;
        drop(queue);
        self.reader.wake();
        full
    }

    /// Takes progress; of two in a row the later one is enough.
    pub(crate) fn progress(&self, revision: Revision) {
        let mut queue = self.queue.lock();
        if let Some(WatchItem::Progress(last)) = queue.items.back_mut() {
            *last = revision.max(*last);
        } else {
            queue.items.push_back(WatchItem::Progress(revision));
        }
        drop(queue);
        self.reader.wake();
    }

    /// What the reader gets after everything that waits.
    pub(crate) fn end(&self, error: StoreError) {
        self.queue.lock().end.get_or_insert(error);
        self.reader.wake();
    }
}

/// The reader's side.
#[derive(Debug)]
pub(crate) struct Reader {
    id: u64,
    buffer: Arc<Buffer>,
    commands: mpsc::UnboundedSender<Command>,
    ended: bool,
}

impl Reader {
    pub(crate) fn new(id: u64, buffer: Arc<Buffer>, commands: mpsc::UnboundedSender<Command>) -> Reader {
        Reader { id, buffer, commands, ended: false }
    }
}

impl Stream for Reader {
    type Item = Result<WatchItem, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Before looking, so that what comes meanwhile is not missed.
        self.buffer.reader.register(context.waker());
        let mut queue = self.buffer.queue.lock();
        match queue.items.pop_front() {
            Some(WatchItem::Events(events)) => {
                queue.events -= events.len();
                queue.bytes -= size(&events);
                return Poll::Ready(Some(Ok(WatchItem::Events(events))));
            }
            Some(progress) => return Poll::Ready(Some(Ok(progress))),
            None => {}
        }
        if let Some(error) = queue.end.take() {
            drop(queue);
            self.ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        if queue.paused {
            queue.paused = false;
            // A hub that has ended has left its error in the buffer.
            let _ = self.commands.send(Command::Resume(self.id));
        }
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop(self.id));
    }
}
