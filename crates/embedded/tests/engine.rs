//! What only this engine promises: options, limits, reclaiming, restarts, idle behaviour.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use futures::StreamExt;
use ironkeel_embedded::{Embedded, Options};
use ironkeel_store::{Condition, Store, StoreError, WatchItem, WatchRange, WriteAnswer, prefix_end};

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
