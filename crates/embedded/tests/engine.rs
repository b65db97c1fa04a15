//! What only this engine promises: options, limits, reclaiming, restarts, idle behaviour.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use ironkeel_embedded::{Disk, Embedded, Options, RealDisk};
use ironkeel_store::{Condition, Range, Store, StoreError, WatchItem, WatchRange, WriteAnswer, prefix_end};

async fn put(store: &dyn Store, key: &str, value: &[u8]) -> u64 {
    let answer = store.put(key.to_owned().into(), Bytes::copy_from_slice(value), Condition::Always, 0).await.unwrap();
    match answer {
        WriteAnswer::Done { revision, .. } => revision,
        WriteAnswer::Conflict { .. } => panic!("an unconditional put conflicts"),
    }
}

#[tokio::test]
async fn data_history_and_leases_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let lease = {
        let store = Embedded::open(dir.path(), Options::default()).unwrap();
        let lease = store.lease_grant(600).await.unwrap();
        put(&*store, "/a", b"1").await;
        put(&*store, "/a", b"2").await;
        put(&*store, "/b", b"1").await;
        store.delete("/b".into(), Condition::Always).await.unwrap();
        store.put("/c".into(), "3".into(), Condition::Absent, lease).await.unwrap();
        store.close().await;
        assert!(matches!(store.get(b"/a", 0).await, Err(StoreError::Closed(_))));
        lease
    };
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    let status = store.status().await.unwrap();
    assert_eq!((status.revision, status.keys, status.recovery), (5, 2, None));
    let a = store.get(b"/a", 0).await.unwrap().0.unwrap();
    assert_eq!((&a.value[..], a.create_revision, a.mod_revision), (&b"2"[..], 1, 2));
    assert_eq!(store.get(b"/b", 3).await.unwrap().0.unwrap().value, "1");
    assert_eq!(store.get(b"/b", 0).await.unwrap().0, None);
    let range = WatchRange { start: "/".into(), end: prefix_end(b"/"), from: 1, ..WatchRange::default() };
    let (_, mut watch) = store.watch(range).await.unwrap();
    let Some(Ok(WatchItem::Events(events))) = watch.next().await else { panic!("history is gone") };
    assert_eq!(events.iter().map(|event| event.kv.mod_revision).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(store.get(b"/c", 0).await.unwrap().0, None);
}

fn all() -> Range {
    Range { start: "/".into(), end: prefix_end(b"/"), ..Range::default() }
}

/// Asks until it holds, for at most ten seconds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut pause = tokio::time::interval(Duration::from_millis(5));
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        pause.tick().await;
    }
}

#[tokio::test]
async fn space_is_reclaimed_and_what_lives_survives_in_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { segment_bytes: 64 << 10, reclaim_min_bytes: 32 << 10, ..Options::default() };
    let store = Embedded::open(dir.path(), options()).unwrap();
    let lease = store.lease_grant(600).await.unwrap();
    store.put("/leased".into(), "1".into(), Condition::Always, lease).await.unwrap();
    let old = put(&*store, "/old", b"old").await;
    for _ in 0..500 {
        put(&*store, "/busy", &[b'x'; 2000]).await;
    }
    // The compacted revision is a delete: its event must come through the snapshot.
    let compacted = match store.delete("/busy".into(), Condition::Always).await.unwrap() {
        WriteAnswer::Done { revision, .. } => revision,
        WriteAnswer::Conflict { .. } => panic!("an unconditional delete conflicts"),
    };
    let before = store.status().await.unwrap().disk_bytes;
    assert!(before > 1_000_000);
    store.compact(compacted).await.unwrap();
    let last = put(&*store, "/after", b"1").await;
    until("space is given back", async || store.status().await.unwrap().disk_bytes < before / 10).await;
    let on_disk: u64 =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(on_disk < before / 10, "{on_disk} bytes of files");
    store.close().await;

    let store = Embedded::open(dir.path(), options()).unwrap();
    let status = store.status().await.unwrap();
    assert_eq!((status.revision, status.compacted, status.keys), (last, compacted, 3));
    assert_eq!(store.get(b"/old", 0).await.unwrap().0.unwrap().mod_revision, old);
    assert_eq!(store.get(b"/busy", 0).await.unwrap().0, None);
    let range = WatchRange { start: "/".into(), end: prefix_end(b"/"), from: compacted, ..WatchRange::default() };
    let (_, mut watch) = store.watch(range).await.unwrap();
    let Some(Ok(WatchItem::Events(events))) = watch.next().await else { panic!("history is gone") };
    let seen: Vec<_> = events.iter().map(|event| (event.kv.mod_revision, event.deleted)).collect();
    assert_eq!(seen, [(compacted, true), (last, false)]);
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(store.range(all()).await.unwrap().count, 2);
}

#[tokio::test]
async fn history_is_compacted_by_time_and_by_length() {
    let dir = tempfile::tempdir().unwrap();
    let by_length = Options { history_revisions: 100, ..Options::default() };
    let store = Embedded::open(dir.path(), by_length).unwrap();
    for _ in 0..300 {
        put(&*store, "/a", b"1").await;
    }
    until("a long history is cut", async || store.status().await.unwrap().compacted >= 200).await;
    store.close().await;

    let by_time = Options { compaction_interval: Duration::from_millis(30), ..Options::default() };
    let store = Embedded::open(dir.path(), by_time).unwrap();
    let last = put(&*store, "/a", b"2").await;
    until("an old history is cut", async || store.status().await.unwrap().compacted == last).await;
    assert_eq!(store.get(b"/a", last).await.unwrap().0.unwrap().value, "2");
}

#[tokio::test]
async fn history_that_outweighs_what_lives_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let by_bytes = Options { history_bytes: 16 << 10, ..Options::default() };
    let store = Embedded::open(dir.path(), by_bytes).unwrap();
    let value = "v".repeat(1 << 10);
    // More of it lives than the limit, and history may be as much.
    for i in 0..32 {
        put(&*store, &format!("/live/{i}"), value.as_bytes()).await;
    }
    for _ in 0..24 {
        put(&*store, "/a", value.as_bytes()).await;
    }
    let untouched = store.status().await.unwrap().compacted;
    assert_eq!(untouched, 0, "no more than what lives");
    let mut last = 0;
    for _ in 0..64 {
        last = put(&*store, "/a", value.as_bytes()).await;
    }
    until("a heavy history is cut", async || store.status().await.unwrap().compacted > 28).await;
    assert!(store.status().await.unwrap().compacted < last, "not all of it goes");
}

#[tokio::test]
async fn a_store_over_its_limit_refuses_writes_until_keys_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { max_bytes: 1 << 20, segment_bytes: 128 << 10, reclaim_min_bytes: 16 << 10, ..Options::default() };
    let store = Embedded::open(dir.path(), options).unwrap();
    let mut written = 0;
    let refused = loop {
        let value = Bytes::from(vec![b'x'; 10_000]);
        match store.put(format!("/{written:04}").into(), value, Condition::Always, 0).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::NoSpace(_)), "{refused}");
    assert!((95..=105).contains(&written), "{written} writes of 10 kB in 1 MiB");
    assert_eq!(store.range(all()).await.unwrap().count, written);
    for number in 0..written {
        store.delete(format!("/{number:04}").into(), Condition::Always).await.unwrap();
    }
    until("there is room again", async || {
        store.put("/again".into(), vec![b'x'; 10_000].into(), Condition::Always, 0).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_watcher_that_does_not_keep_up_is_told_so_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options { watch_buffer_events: 10, ..Options::default() }).unwrap();
    let range = WatchRange { start: "/".into(), end: prefix_end(b"/"), ..WatchRange::default() };
    let (_, mut slow) = store.watch(range.clone()).await.unwrap();
    let (_, mut fast) = store.watch(range).await.unwrap();
    for _ in 0..11 {
        put(&*store, "/a", b"1").await;
        assert!(matches!(fast.next().await, Some(Ok(WatchItem::Events(_)))));
    }
    assert!(matches!(slow.next().await, Some(Err(StoreError::SlowWatcher { limit: 10 }))));
    assert!(slow.next().await.is_none());
    store.close().await;
    assert!(matches!(fast.next().await, Some(Err(StoreError::Closed(_)))));
}

/// Counts what reaches the disk.
#[derive(Debug, Default)]
struct CountingDisk {
    syncs: AtomicUsize,
}

impl Disk for CountingDisk {
    fn write(&self, file: &std::fs::File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        RealDisk.write(file, bytes, offset)
    }

    fn sync(&self, file: &std::fs::File) -> std::io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        RealDisk.sync(file)
    }
}

#[tokio::test]
async fn an_idle_store_neither_syncs_nor_wakes_its_watchers() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(CountingDisk::default());
    let store = Embedded::open(dir.path(), Options { disk: disk.clone(), ..Options::default() }).unwrap();
    let range = WatchRange { start: "/".into(), end: prefix_end(b"/"), progress: true, ..WatchRange::default() };
    let (_, mut watch) = store.watch(range).await.unwrap();
    let revision = put(&*store, "/a", b"1").await;
    until("the watch is told everything", async || match watch.next().await {
        Some(Ok(WatchItem::Events(events))) => events[0].kv.mod_revision == revision,
        Some(Ok(WatchItem::Progress(told))) => told == revision,
        item => panic!("{item:?}"),
    })
    .await;
    let syncs = disk.syncs.load(Ordering::SeqCst);
    let items = tokio::time::timeout(Duration::from_millis(1500), watch.next()).await;
    assert!(items.is_err(), "an idle watch is told {items:?}");
    assert_eq!(disk.syncs.load(Ordering::SeqCst), syncs, "an idle store syncs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_range_does_not_hold_up_writes() {
    const KEYS: usize = 150_000;
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    let mut tasks = Vec::new();
    for task in 0..64 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            for number in (task..KEYS).step_by(64) {
                put(&*store, &format!("/{number:06}"), &[b'x'; 100]).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let reading = tokio::spawn({
        let store = store.clone();
        async move {
            let started = Instant::now();
            let answer = store.range(all()).await.unwrap();
            assert_eq!((answer.kvs.len(), answer.count), (KEYS, KEYS as u64));
            assert!(answer.kvs.iter().all(|kv| kv.mod_revision <= answer.revision), "a later write shows");
            started.elapsed()
        }
    });
    let mut writes = 0;
    let mut slowest = Duration::ZERO;
    while !reading.is_finished() {
        let started = Instant::now();
        put(&*store, "/000000", b"new").await;
        slowest = slowest.max(started.elapsed());
        writes += 1;
    }
    let took = reading.await.unwrap();
    println!("range of {KEYS}: {took:?}; meanwhile {writes} writes, the slowest {slowest:?}");
    assert!(writes > 3 || slowest < took / 2, "the range held up the writer: {writes} writes in {took:?}");

    store.close().await;
    let started = Instant::now();
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    println!("opening {KEYS} keys: {:?}", started.elapsed());
    assert_eq!(store.status().await.unwrap().keys, KEYS as u64);
}
