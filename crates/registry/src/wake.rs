//! Waking watchers: when, and which of them.
//!
//! A few watchers are woken at every change. What a wake-up costs grows with their number (each is a
//! task, a TLS record and a system call), and writers wait for the same cores: so the more watchers
//! there are, the rarer they are woken, and each then writes several events at once. The first change
//! after a pause is told at once whatever their number.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use crate::entry::Entry;

/// So many watchers are woken at every change.
const FEW: usize = 32;
/// Time between two wake-ups for each watcher that is woken, in microseconds: about twice what a core
/// spends on it.
const WAKE_US: u64 = 25;
/// Longest time between two wake-ups, in milliseconds.
const LONGEST_WAKE_MS: u64 = 100;
/// Changes after which watchers of one value are woken whether or not it was touched; well below
/// [`crate::cache::RING_MIN_EVENTS`].
const TARGETS_WAKE_EVENTS: usize = crate::cache::RING_MIN_EVENTS / 2;

/// Watchers that are woken together.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// Revision of the last change that was told.
    changed: watch::Sender<u64>,
    waking: Mutex<Waking>,
}

#[derive(Debug, Default)]
struct Waking {
    last: Option<Instant>,
    planned: bool,
    revision: u64,
}

impl Crowd {
    /// One more watcher.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Revision of the last change that was told.
    pub(crate) fn revision(&self) -> u64 {
        *self.changed.borrow()
    }

    /// Wakes them whenever they were woken last.
    pub(crate) fn wake_now(&self, revision: u64) {
        self.changed.send_replace(revision);
    }

    /// Wakes them, or plans to.
    pub(crate) fn wake(self: &Arc<Self>, revision: u64) {
        let watchers = self.changed.receiver_count();
        if watchers <= FEW {
            self.changed.send_replace(revision);
            return;
        }
        let mut waking = self.waking.lock();
        waking.revision = revision;
        if waking.planned {
            return;
        }
        let spacing = Duration::from_micros(WAKE_US * watchers as u64).min(Duration::from_millis(LONGEST_WAKE_MS));
        match waking.last.map(|last| last + spacing).filter(|next| *next > Instant::now()) {
            Some(next) => {
                waking.planned = true;
                let crowd = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep_until(next).await;
                    let mut waking = crowd.waking.lock();
                    waking.planned = false;
                    waking.last = Some(Instant::now());
                    crowd.changed.send_replace(waking.revision);
                });
            }
            None => {
                waking.last = Some(Instant::now());
                self.changed.send_replace(revision);
            }
        }
    }
}

/// What a watcher wants that tells most changes of others'.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// Objects of this name.
    Name(&'a str),
    /// Objects with this value of a field, by its place in the entries' extracts.
    Field(usize, &'a str),
}

/// Watchers that want one name (kubelets: a Secret of a pod) or one value of a field (kubelets: the
/// pods of their node). They are woken for changes that touch it, and all of them every
/// [`TARGETS_WAKE_EVENTS`] changes.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    names: HashMap<Box<str>, Arc<Crowd>>,
    /// The field; of the first such watcher.
    field: Option<usize>,
    values: HashMap<Box<str>, Arc<Crowd>>,
    touched: Vec<Arc<Crowd>>,
    since_all: usize,
}

impl Targets {
    /// One more watcher; `None` where watchers of another field are told apart.
    pub(crate) fn subscribe(&mut self, target: Target<'_>) -> Option<watch::Receiver<u64>> {
        let (crowds, value) = match target {
            Target::Name(name) => (&mut self.names, name),
            Target::Field(field, _) if *self.field.get_or_insert(field) != field => return None,
            Target::Field(_, value) => (&mut self.values, value),
        };
        Some(crowds.entry(value.into()).or_default().subscribe())
    }

    /// Notes whom a change touches.
    pub(crate) fn touch(&mut self, entry: &Entry, previous: Option<&Entry>) {
        if self.names.is_empty() && self.values.is_empty() {
            return;
        }
        self.since_all += 1;
        let mut note = |crowd: Option<&Arc<Crowd>>| {
            // Told twice is no harm; once is usual.
            if let Some(crowd) = crowd.filter(|crowd| self.touched.last().is_none_or(|t| !Arc::ptr_eq(t, crowd))) {
                self.touched.push(crowd.clone());
            }
        };
        note(self.names.get(entry.name()));
        if let Some(field) = self.field {
            let now = entry.field(field);
            note(self.values.get(now));
            note(previous.map(|p| p.field(field)).filter(|before| *before != now).and_then(|v| self.values.get(v)));
        }
    }

    /// Wakes those who were noted.
    pub(crate) fn wake(&mut self, revision: u64) {
        let touched = std::mem::take(&mut self.touched);
        if self.since_all >= TARGETS_WAKE_EVENTS {
            self.since_all = 0;
            self.wake_all(revision);
            return;
        }
        for crowd in touched {
            crowd.wake(revision);
        }
    }

    /// Wakes every watcher of any target, and forgets targets that nobody watches.
    pub(crate) fn wake_all(&mut self, revision: u64) {
        for crowds in [&mut self.names, &mut self.values] {
            crowds.retain(|_, crowd| crowd.changed.receiver_count() > 0);
            for crowd in crowds.values() {
                crowd.wake_now(revision);
            }
        }
    }
}
