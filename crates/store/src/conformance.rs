//! The suite that every engine must pass: etcd's meaning, check by check.
//!
//! [`run_all`] runs everything; [`conformance_tests!`](crate::conformance_tests) makes a test of each check.
//! A check gets a store of its own, empty or at least without keys under `/conformance/`, and panics
//! with what does not hold. What does not live here: crashes, disks and files, which are an engine's own.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use crate::{
    Condition, Event, KeyValue, Range, Revision, Store, StoreError, WatchItem, WatchRange, WatchStream, WriteAnswer,
    prefix_end,
};

mod history;
mod leases;
mod reads;
mod watches;
mod writes;

pub use history::*;
pub use leases::*;
pub use reads::*;
pub use watches::*;
pub use writes::*;

/// An item that does not come within this time does not come, in milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// How long a check listens to be sure that nothing comes, in milliseconds.
const SILENCE_MS: u64 = 100;

/// Calls the macro `$then` with its own arguments and the names of all checks.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_checks {
    ($then:path, $($argument:tt)*) => {
        $then! { ($($argument)*)
            create_needs_absence
            update_needs_the_mod_revision
            delete_needs_the_mod_revision
            delete_of_an_absent_key_takes_no_revision
            every_write_takes_the_next_revision
            create_revision_starts_anew_after_a_delete
            answers_carry_what_stood_there
            concurrent_writers_of_one_key_are_linearizable
            concurrent_creates_have_one_winner
            too_large_a_write_is_refused
            empty_and_binary_values_are_kept
            range_is_ordered_and_half_open
            range_limit_still_counts_all
            range_keys_only_and_count_only
            range_from_a_key_on
            reads_as_of_a_revision_are_snapshots
            paging_at_a_revision_is_consistent_under_writes
            reads_of_the_future_are_refused
            watch_is_ordered
            watch_is_unique
            watch_is_atomic
            watch_is_reliable
            watch_is_resumable
            watch_is_bookmarkable
            watch_carries_previous_values
            watch_tells_creates_from_updates
            watch_filters_its_range
            watch_of_one_key
            watch_from_the_future_waits
            watch_joins_history_and_live_without_a_gap
            watch_delivers_however_late_it_is_polled
            many_watchers_each_see_their_own
            compaction_forgets_history
            compaction_keeps_what_lives
            compaction_of_the_future_is_refused
            compacted_watch_is_refused
            watch_from_the_compacted_revision_works
            lease_needs_to_exist
            lease_revoke_deletes_its_keys
            lease_expiry_deletes_its_keys
            lease_keep_alive_postpones_expiry
            lease_is_left_by_a_put_without_it
            lease_that_ended_cannot_be_kept_alive
            status_follows_the_writes
            current_revision_is_reached_by_quiet_watches
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_test_each {
    (($make:path) $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                $crate::conformance::$check($make().await).await;
            }
        )*
    };
}

/// A test for each check, on the store that the async function `$make` answers.
#[macro_export]
macro_rules! conformance_tests {
    ($make:path) => {
        $crate::conformance_checks!($crate::conformance_test_each, $make);
    };
}

macro_rules! run_each {
    (($make:ident) $($check:ident)*) => {
        $($check($make().await).await;)*
    };
}

/// Runs every check, each on a store that `make` answers.
pub async fn run_all<F, S>(make: F)
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn Store>>,
{
    conformance_checks!(run_each, make);
}

fn key(name: &str) -> Bytes {
    Bytes::from(format!("/conformance/{name}"))
}

fn all() -> Range {
    Range { start: key(""), end: prefix_end(&key("")), ..Range::default() }
}

fn watch_all(from: Revision) -> WatchRange {
    WatchRange { start: key(""), end: prefix_end(&key("")), from, ..WatchRange::default() }
}

async fn write(store: &dyn Store, name: &str, value: &str, condition: Condition) -> WriteAnswer {
    store.put(key(name), Bytes::from(value.to_owned()), condition, 0).await.expect("a put fails")
}

fn done(answer: WriteAnswer) -> (Revision, Option<KeyValue>) {
    match answer {
        WriteAnswer::Done { revision, previous } => (revision, previous),
        WriteAnswer::Conflict { current, revision } => {
            panic!("the condition does not hold at revision {revision}: {current:?} stands there")
        }
    }
}

/// Puts without a condition; answers the revision.
async fn put(store: &dyn Store, name: &str, value: &str) -> Revision {
    done(write(store, name, value, Condition::Always).await).0
}

/// Deletes without a condition; answers the revision.
async fn delete(store: &dyn Store, name: &str) -> Revision {
    done(store.delete(key(name), Condition::Always).await.expect("a delete fails")).0
}

async fn get(store: &dyn Store, name: &str, revision: Revision) -> Option<KeyValue> {
    store.get(&key(name), revision).await.expect("a get fails").0
}

async fn start_watch(store: &dyn Store, range: WatchRange) -> WatchStream {
    store.watch(range).await.expect("a watch does not start").1
}

/// The watch's next item, whatever it is.
async fn next_item(watch: &mut WatchStream) -> Result<WatchItem, StoreError> {
    tokio::time::timeout(Duration::from_millis(PATIENCE_MS), watch.next())
        .await
        .expect("the watch stays silent")
        .expect("the watch ends without an error")
}

/// The watch's next events, at least `count`.
async fn next_events(watch: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        if let WatchItem::Events(more) = next_item(watch).await.expect("the watch ends") {
            events.extend(more);
        }
    }
    events
}

/// Listens for a moment; panics when an event comes.
async fn no_events(watch: &mut WatchStream) {
    let listen = async {
        loop {
            if let Some(Ok(WatchItem::Events(events))) = watch.next().await {
                return events;
            }
        }
    };
    if let Ok(events) = tokio::time::timeout(Duration::from_millis(SILENCE_MS), listen).await {
        panic!("events that nobody made: {events:?}");
    }
}

fn revisions(events: &[Event]) -> Vec<Revision> {
    events.iter().map(|event| event.kv.mod_revision).collect()
}
