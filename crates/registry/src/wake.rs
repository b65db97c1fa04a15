//! Waking watchers: when, and which of them.
//!
//! A few watchers are woken at every change. What a wake-up costs grows with their number (each is a
//! task, a TLS record and a system call), and writers wait for the same cores: so the more watchers
//! there are, the rarer they are woken, and each then writes several events at once. The first change
//! after a pause is told at once whatever their number.

use std::collections::{HashMap, VecDeque};
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
/// With fewer targets it is not looked which of them nobody watches any more.
const SWEEP_LEAST: usize = 64;

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
    /// Objects of this namespace.
    Namespace(&'a str),
}

/// Where the changes that touch a target stand in the ring, by sequence number: its watchers look at no others,
/// and have missed nothing when the ring moves on without them.
#[derive(Debug)]
pub(crate) struct Places {
    /// Those before this number were not noted.
    from: u64,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    sequence: VecDeque<u64>,
    /// Behind the last one that the ring has dropped.
    lost: u64,
}

impl Places {
    /// Notes a change; the ring begins at `first`.
    fn note(&self, at: u64, first: u64) {
        let mut noted = self.noted.lock();
        while let Some(gone) = noted.sequence.front().copied().filter(|s| *s < first) {
            noted.sequence.pop_front();
            noted.lost = gone + 1;
        }
        noted.sequence.push_back(at);
    }

    /// Forgets what the ring, which begins at `first`, has dropped, and the room for it.
    fn forget_before(&self, first: u64) {
        let mut noted = self.noted.lock();
        let gone = noted.sequence.partition_point(|s| *s < first);
        let last = noted.sequence.drain(..gone).next_back();
        noted.lost = last.map_or(noted.lost, |last| last + 1);
        noted.sequence.shrink_to_fit();
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.noted.lock().sequence.is_empty()
    }

    /// Changes before this number have to be looked at one by one.
    pub(crate) fn from(&self) -> u64 {
        self.from
    }

    /// Up to `most` of the changes from `cursor` on; `None` when the ring, which begins at `first`, has dropped one.
    pub(crate) fn after(&self, cursor: u64, most: usize, first: u64) -> Option<Vec<u64>> {
        let noted = self.noted.lock();
        let begin = noted.sequence.partition_point(|s| *s < cursor);
        let out: Vec<u64> = noted.sequence.range(begin..).take(most).copied().collect();
        let lost = cursor < noted.lost || out.first().is_some_and(|s| *s < first);
        (!lost).then_some(out)
    }
}

/// What a watcher waits on.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) changed: watch::Receiver<u64>,
    /// What it has to look at; without, every change.
    pub(crate) places: Option<Arc<Places>>,
}

/// The watchers of one target.
#[derive(Debug)]
struct Interest {
    crowd: Arc<Crowd>,
    places: Arc<Places>,
}

impl Interest {
    fn is_left(&self) -> bool {
        self.crowd.changed.receiver_count() == 0
    }
}

/// The watchers of the values of one thing: of a name, say.
#[derive(Debug, Default)]
struct Values {
    interests: HashMap<Box<str>, Interest>,
    /// Values that nobody watches any more are looked for when there are so many.
    sweep_at: usize,
}

impl Values {
    fn subscribe(&mut self, value: &str, end: u64) -> Subscription {
        if self.interests.len() >= self.sweep_at {
            self.interests.retain(|_, interest| !interest.is_left());
            self.sweep_at = (2 * self.interests.len()).max(SWEEP_LEAST);
        }
        let interest = self.interests.entry(value.into()).or_insert_with(|| Interest {
            crowd: Arc::default(),
            places: Arc::new(Places { from: end, noted: Mutex::default() }),
        });
        Subscription { changed: interest.crowd.subscribe(), places: Some(interest.places.clone()) }
    }

    fn touch(&mut self, value: &str, at: u64, first: u64, touched: &mut Vec<Arc<Crowd>>) {
        let Some(interest) = self.interests.get(value) else { return };
        if interest.is_left() {
            self.interests.remove(value);
            return;
        }
        interest.places.note(at, first);
        // Told twice is no harm; once is usual.
        if touched.last().is_none_or(|last| !Arc::ptr_eq(last, &interest.crowd)) {
            touched.push(interest.crowd.clone());
        }
    }
}

/// Watchers that want one name (kubelets: a Secret of a pod), one value of a field (kubelets: the pods of their
/// node) or one namespace. They are woken for changes that touch it.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    names: Values,
    /// The field; of the first such watcher.
    field: Option<usize>,
    fields: Values,
    namespaces: Values,
    touched: Vec<Arc<Crowd>>,
}

impl Targets {
    /// One more watcher; the ring ends at `end`. `None` where watchers of another field are told apart.
    pub(crate) fn subscribe(&mut self, target: Target<'_>, end: u64) -> Option<Subscription> {
        Some(match target {
            Target::Name(name) => self.names.subscribe(name, end),
            Target::Field(field, _) if *self.field.get_or_insert(field) != field => return None,
            Target::Field(_, value) => self.fields.subscribe(value, end),
            Target::Namespace(namespace) => self.namespaces.subscribe(namespace, end),
        })
    }

    /// Notes whom a change touches: it stands at `at` in the ring, which begins at `first`.
    pub(crate) fn touch(&mut self, entry: &Entry, previous: Option<&Entry>, at: u64, first: u64) {
        let touched = &mut self.touched;
        if !self.names.interests.is_empty() {
            self.names.touch(entry.name(), at, first, touched);
        }
        if !self.namespaces.interests.is_empty() {
            self.namespaces.touch(entry.namespace(), at, first, touched);
        }
        if let Some(field) = self.field.filter(|_| !self.fields.interests.is_empty()) {
            let now = entry.field(field);
            self.fields.touch(now, at, first, touched);
            if let Some(before) = previous.map(|p| p.field(field)).filter(|before| *before != now) {
                self.fields.touch(before, at, first, touched);
            }
        }
    }

    /// Forgets places that the ring, which begins at `first`, has dropped, also of those that nothing touches any more.
    pub(crate) fn forget_before(&mut self, first: u64) {
        for values in [&self.names, &self.fields, &self.namespaces] {
            values.interests.values().for_each(|interest| interest.places.forget_before(first));
        }
    }

    /// Wakes those who were noted.
    pub(crate) fn wake(&mut self, revision: u64) {
        for crowd in std::mem::take(&mut self.touched) {
            crowd.wake(revision);
        }
    }

    /// Wakes every watcher of any target.
    pub(crate) fn wake_all(&mut self, revision: u64) {
        for values in [&self.names, &self.fields, &self.namespaces] {
            values.interests.values().for_each(|interest| interest.crowd.wake_now(revision));
        }
    }
}
