//! Compaction, and what is left after it.

use super::*;

fn is_compacted(error: &StoreError, requested: Revision, compacted: Revision) -> bool {
    matches!(error, StoreError::Compacted { requested: r, compacted: c } if (*r, *c) == (requested, compacted))
}

/// Reads from before the compacted revision fail, and say where history begins.
pub async fn compaction_forgets_history(store: Arc<dyn Store>) {
    let first = put(&*store, "a", "1").await;
    for _ in 0..5 {
        put(&*store, "a", "2").await;
    }
    let compacted = first + 3;
    store.compact(compacted).await.expect("a compaction fails");
    let error = store.get(&key("a"), first + 2).await.expect_err("a compacted get");
    assert!(is_compacted(&error, first + 2, compacted), "{error}");
    let error = store.range(Range { revision: first, ..all() }).await.expect_err("a compacted range");
    assert!(is_compacted(&error, first, compacted), "{error}");
    for revision in compacted..=first + 5 {
        let kv = get(&*store, "a", revision).await.expect("the key");
        assert_eq!(kv.mod_revision, revision, "as of a revision that is not compacted");
    }
    assert_eq!(store.status().await.expect("status").compacted, compacted);
    let error = store.compact(first).await.expect_err("a compaction of what is compacted");
    assert!(is_compacted(&error, first, compacted), "{error}");
}

/// Live keys stay, however old; deleted ones do not come back.
pub async fn compaction_keeps_what_lives(store: Arc<dyn Store>) {
    let old = put(&*store, "old", "1").await;
    put(&*store, "deleted", "1").await;
    delete(&*store, "deleted").await;
    put(&*store, "updated", "1").await;
    let last = put(&*store, "updated", "2").await;
    store.compact(last).await.expect("a compaction fails");
    let kv = get(&*store, "old", 0).await.expect("the old key");
    assert_eq!((&kv.value[..], kv.mod_revision), (&b"1"[..], old));
    assert_eq!(get(&*store, "deleted", 0).await, None);
    assert_eq!(get(&*store, "updated", last).await.expect("the key").value, "2");
    assert_eq!(store.range(all()).await.expect("a range fails").count, 2);
    let again = put(&*store, "deleted", "2").await;
    assert_eq!(get(&*store, "deleted", 0).await.expect("the key").create_revision, again);
}

/// What has not happened cannot be compacted.
pub async fn compaction_of_the_future_is_refused(store: Arc<dyn Store>) {
    let current = put(&*store, "a", "1").await;
    match store.compact(current + 1).await {
        Err(StoreError::FutureRevision { requested, current: told }) => {
            assert_eq!((requested, told), (current + 1, current));
        }
        answer => panic!("a compaction of the future answers {answer:?}"),
    }
}

/// A watch from before the compacted revision fails: at its start or with its first item.
pub async fn compacted_watch_is_refused(store: Arc<dyn Store>) {
    let first = put(&*store, "a", "1").await;
    let last = put(&*store, "a", "2").await;
    put(&*store, "a", "3").await;
    store.compact(last).await.expect("a compaction fails");
    let error = match store.watch(watch_all(first)).await {
        Err(error) => error,
        Ok((_, mut watch)) => next_item(&mut watch).await.expect_err("an item from compacted history"),
    };
    assert!(is_compacted(&error, first, last), "{error}");
}

/// The compacted revision is the oldest to watch from; its own event is still there.
pub async fn watch_from_the_compacted_revision_works(store: Arc<dyn Store>) {
    put(&*store, "a", "1").await;
    put(&*store, "b", "1").await;
    let compacted = put(&*store, "a", "2").await;
    store.compact(compacted).await.expect("a compaction fails");
    let last = put(&*store, "a", "3").await;
    let mut watch = start_watch(&*store, WatchRange { previous: true, ..watch_all(compacted) }).await;
    let events = next_events(&mut watch, 2).await;
    assert_eq!(revisions(&events), [compacted, last]);
    assert!(!events[0].is_create(), "the key is older than the compaction");
    assert_eq!(events[1].previous.as_ref().expect("the previous value").value, "2");
}

/// Status tells revision, keys and sizes; the sizes may come late.
pub async fn status_follows_the_writes(store: Arc<dyn Store>) {
    let before = store.status().await.expect("status");
    let value = "x".repeat(1 << 20);
    put(&*store, "a", &value).await;
    put(&*store, "b", "1").await;
    let last = delete(&*store, "b").await;
    let started = std::time::Instant::now();
    loop {
        let after = store.status().await.expect("status");
        assert_eq!(after.revision, last);
        assert_eq!(after.keys, before.keys + 1);
        if after.live_bytes >= before.live_bytes + value.len() as u64 && after.disk_bytes >= after.live_bytes {
            break;
        }
        assert!(started.elapsed() < Duration::from_millis(PATIENCE_MS), "{after:?} after {before:?}");
        tokio::time::sleep(Duration::from_millis(SILENCE_MS)).await;
    }
}

/// The current revision counts every write, and quiet watches learn it when they ask for progress.
pub async fn current_revision_is_reached_by_quiet_watches(store: Arc<dyn Store>) {
    let quiet = WatchRange { start: key("quiet"), progress: true, ..WatchRange::default() };
    let mut quiet = start_watch(&*store, quiet).await;
    for _ in 0..3 {
        let last = put(&*store, "a", "1").await;
        assert_eq!(store.current_revision().await.expect("a revision"), last);
        loop {
            match next_item(&mut quiet).await.expect("the watch ends") {
                WatchItem::Progress(revision) if revision == last => break,
                WatchItem::Progress(revision) => assert!(revision < last, "progress from the future"),
                WatchItem::Events(events) => panic!("events of another key: {events:?}"),
            }
        }
    }
}
