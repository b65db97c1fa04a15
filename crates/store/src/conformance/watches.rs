//! etcd's nine watch properties, and how watches begin.

use super::*;

/// Writes every kind of change from several tasks; answers the last revision.
async fn storm(store: &Arc<dyn Store>, writers: usize, writes: usize) -> Revision {
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..writes {
                    let name = format!("{writer}/{}", number % 5);
                    if number % 7 == 6 {
                        delete(&*store, &name).await
                    } else {
                        put(&*store, &name, "x").await
                    };
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a writer panics");
    }
    store.status().await.expect("status").revision
}

/// Events up to and including a revision.
async fn events_until(watch: &mut WatchStream, last: Revision) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|event| event.kv.mod_revision < last) {
        events.extend(next_events(watch, 1).await);
    }
    events
}

/// Ordered: revisions only go up.
pub async fn watch_is_ordered(store: Arc<dyn Store>) {
    let mut watch = start_watch(&*store, watch_all(0)).await;
    let last = storm(&store, 4, 50).await;
    let events = events_until(&mut watch, last).await;
    assert!(events.is_sorted_by_key(|event| event.kv.mod_revision), "out of order: {:?}", revisions(&events));
}

/// Unique: no event comes twice.
pub async fn watch_is_unique(store: Arc<dyn Store>) {
    let first = put(&*store, "first", "1").await;
    let mut watch = start_watch(&*store, watch_all(first)).await;
    let last = storm(&store, 4, 50).await;
    let mut seen: Vec<_> =
        events_until(&mut watch, last).await.into_iter().map(|event| (event.kv.key, event.kv.mod_revision)).collect();
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "an event came twice");
    no_events(&mut watch).await;
}

/// Atomic: the events of one revision are never spread over two items, and what an event shows can be
/// read.
pub async fn watch_is_atomic(store: Arc<dyn Store>) {
    let mut watch = start_watch(&*store, watch_all(0)).await;
    let lease = store.lease_grant(600).await.expect("a lease");
    for name in ["a", "b", "c"] {
        store.put(key(name), Bytes::new(), Condition::Always, lease).await.expect("a put fails");
    }
    store.lease_revoke(lease).await.expect("a revoke fails");
    let mut last = 0;
    let mut seen = 0;
    while seen < 6 {
        if let WatchItem::Events(events) = next_item(&mut watch).await.expect("the watch ends") {
            assert!(events[0].kv.mod_revision > last, "revision {last} is spread over two items");
            for event in &events {
                let read = store.get(&event.kv.key, event.kv.mod_revision).await.expect("a get fails").0;
                assert_eq!(read.as_ref(), (!event.deleted).then_some(&event.kv), "the event shows something else");
            }
            last = events[events.len() - 1].kv.mod_revision;
            seen += events.len();
        }
    }
}

/// Reliable: nothing is missing.
pub async fn watch_is_reliable(store: Arc<dyn Store>) {
    let before = put(&*store, "before", "1").await;
    let mut watch = start_watch(&*store, watch_all(before + 1)).await;
    let last = storm(&store, 4, 50).await;
    let events = events_until(&mut watch, last).await;
    let wanted: Vec<Revision> = (before + 1..=last).collect();
    assert_eq!(revisions(&events), wanted, "one event for each write");
}

/// Resumable: a new watch goes on where a broken one ended.
pub async fn watch_is_resumable(store: Arc<dyn Store>) {
    let first = put(&*store, "first", "1").await;
    let last = storm(&store, 2, 50).await;
    let mut seen = Vec::new();
    let mut from = first;
    while from <= last {
        let mut watch = start_watch(&*store, watch_all(from)).await;
        let events = next_events(&mut watch, 1).await;
        // A client may break off in the middle of an item, between two revisions.
        seen.extend(revisions(&events).into_iter().take(7));
        from = seen[seen.len() - 1] + 1;
    }
    assert_eq!(seen, (first..=last).collect::<Vec<_>>());
}

/// Bookmarkable: progress comes to idle watchers, and everything up to it came before.
pub async fn watch_is_bookmarkable(store: Arc<dyn Store>) {
    let quiet = WatchRange { start: key("quiet"), progress: true, ..WatchRange::default() };
    let mut quiet = start_watch(&*store, quiet).await;
    let mut watch = start_watch(&*store, WatchRange { progress: true, ..watch_all(0) }).await;
    let last = storm(&store, 2, 20).await;
    for (name, watch) in [("a quiet watch", &mut quiet), ("a busy watch", &mut watch)] {
        let (mut seen, mut progress) = (0, 0);
        // An event tells its own revision as well as a bookmark does.
        while progress.max(seen) < last {
            match next_item(watch).await.expect("the watch ends") {
                WatchItem::Events(events) => {
                    assert!(events[0].kv.mod_revision > progress, "{name}: an event from before the bookmark");
                    seen = events[events.len() - 1].kv.mod_revision;
                }
                WatchItem::Progress(revision) => {
                    assert!(revision >= progress.max(seen), "{name}: progress goes back");
                    progress = revision;
                }
            }
        }
        assert_eq!(progress.max(seen), last, "{name}: progress from the future");
    }
    let again = put(&*store, "quiet", "1").await;
    assert_eq!(revisions(&next_events(&mut quiet, 1).await), [again], "the bookmark skipped an event");
}

/// Previous values come when asked for, live and from history.
pub async fn watch_carries_previous_values(store: Arc<dyn Store>) {
    let mut live = start_watch(&*store, WatchRange { previous: true, ..watch_all(0) }).await;
    let mut without = start_watch(&*store, watch_all(0)).await;
    let first = put(&*store, "a", "1").await;
    put(&*store, "a", "2").await;
    delete(&*store, "a").await;
    put(&*store, "a", "3").await;
    let mut late = start_watch(&*store, WatchRange { previous: true, ..watch_all(first) }).await;
    for watch in [&mut live, &mut late] {
        let events = next_events(watch, 4).await;
        let previous: Vec<_> =
            events.iter().map(|event| event.previous.as_ref().map(|kv| (kv.value.clone(), kv.mod_revision))).collect();
        assert_eq!(previous, [None, Some(("1".into(), first)), Some(("2".into(), first + 1)), None]);
    }
    assert!(next_events(&mut without, 4).await.iter().all(|event| event.previous.is_none()), "nobody asked");
}

/// A create can be told from an update, also of a key that was there before.
pub async fn watch_tells_creates_from_updates(store: Arc<dyn Store>) {
    let mut watch = start_watch(&*store, watch_all(0)).await;
    put(&*store, "a", "1").await;
    put(&*store, "a", "2").await;
    delete(&*store, "a").await;
    put(&*store, "a", "3").await;
    let events = next_events(&mut watch, 4).await;
    let kinds: Vec<_> = events.iter().map(|event| (event.is_create(), event.deleted)).collect();
    assert_eq!(kinds, [(true, false), (false, false), (false, true), (true, false)]);
    assert_eq!((&events[2].kv.key, events[2].kv.value.len()), (&key("a"), 0), "a delete carries its key only");
}

/// Filter: a watch sees its range, all of it and nothing else.
pub async fn watch_filters_its_range(store: Arc<dyn Store>) {
    let range = |start: &str, end: &str| WatchRange { start: key(start), end: key(end), ..WatchRange::default() };
    let mut middle = start_watch(&*store, range("b", "d")).await;
    let mut overlapping = start_watch(&*store, range("c", "e")).await;
    let mut empty = start_watch(&*store, range("z", "a")).await;
    let first = put(&*store, "a", "1").await;
    for name in ["b", "c", "d", "e", "c/1"] {
        put(&*store, name, "1").await;
    }
    assert_eq!(revisions(&next_events(&mut middle, 3).await), [first + 1, first + 2, first + 5]);
    assert_eq!(revisions(&next_events(&mut overlapping, 3).await), [first + 2, first + 3, first + 5]);
    let mut late = start_watch(&*store, WatchRange { from: first, ..range("b", "d") }).await;
    assert_eq!(revisions(&next_events(&mut late, 3).await), [first + 1, first + 2, first + 5]);
    for watch in [&mut middle, &mut overlapping, &mut empty] {
        no_events(watch).await;
    }
}

/// Without an end, a watch is of its start alone.
pub async fn watch_of_one_key(store: Arc<dyn Store>) {
    let mut watch = start_watch(&*store, WatchRange { start: key("a"), ..WatchRange::default() }).await;
    put(&*store, "a/b", "1").await;
    put(&*store, "aa", "1").await;
    let wanted = put(&*store, "a", "1").await;
    assert_eq!(revisions(&next_events(&mut watch, 1).await), [wanted]);
}

/// A watch from a revision to come leaves out what comes before it.
pub async fn watch_from_the_future_waits(store: Arc<dyn Store>) {
    let now = put(&*store, "a", "1").await;
    let mut watch = start_watch(&*store, watch_all(now + 3)).await;
    for _ in 0..4 {
        put(&*store, "a", "2").await;
    }
    assert_eq!(revisions(&next_events(&mut watch, 2).await), [now + 3, now + 4]);
}

/// Watches that begin while others write miss nothing where history meets the present.
pub async fn watch_joins_history_and_live_without_a_gap(store: Arc<dyn Store>) {
    let first = put(&*store, "first", "1").await;
    let writing = tokio::spawn({
        let store = store.clone();
        async move { storm(&store, 4, 400).await }
    });
    let mut watches = Vec::new();
    while !writing.is_finished() && watches.len() < 50 {
        watches.push(start_watch(&*store, watch_all(first)).await);
        tokio::task::yield_now().await;
    }
    let last = writing.await.expect("the storm panics");
    for watch in &mut watches {
        assert_eq!(revisions(&events_until(watch, last).await), (first..=last).collect::<Vec<_>>());
    }
}

/// A watch that is in place but not polled loses nothing.
pub async fn watch_delivers_however_late_it_is_polled(store: Arc<dyn Store>) {
    let first = put(&*store, "a", "1").await;
    let mut history = start_watch(&*store, watch_all(first)).await;
    let mut live = start_watch(&*store, watch_all(0)).await;
    if store.shared() {
        // Whoever compacts a shared store does not know of this watch; history is safe once it has come.
        assert_eq!(revisions(&next_events(&mut history, 1).await), [first]);
    }
    for _ in 0..20 {
        put(&*store, "a", "2").await;
    }
    let last = put(&*store, "b", "1").await;
    store.compact(last).await.expect("a compaction fails");
    assert_eq!(revisions(&next_events(&mut live, 21).await), (first + 1..=last).collect::<Vec<_>>());
    let begun = first + u64::from(store.shared());
    let rest = next_events(&mut history, (last + 1 - begun) as usize).await;
    assert_eq!(revisions(&rest), (begun..=last).collect::<Vec<_>>());
}

/// A thousand watchers of different prefixes get what is theirs.
pub async fn many_watchers_each_see_their_own(store: Arc<dyn Store>) {
    const WATCHERS: usize = 1000;
    let prefix = |number: usize| key(&format!("{number:04}/"));
    let mut watches = Vec::new();
    for number in 0..WATCHERS {
        let range = WatchRange { start: prefix(number), end: prefix_end(&prefix(number)), ..WatchRange::default() };
        watches.push(start_watch(&*store, range).await);
    }
    let mut wanted = Vec::new();
    for number in 0..WATCHERS {
        wanted.push(put(&*store, &format!("{number:04}/a"), "1").await);
    }
    for (watch, wanted) in watches.iter_mut().zip(wanted) {
        assert_eq!(revisions(&next_events(watch, 1).await), [wanted]);
    }
}
