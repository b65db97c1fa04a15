//! Leases and the keys that live with them.

use super::*;

async fn put_leased(store: &dyn Store, name: &str, lease: crate::LeaseId) -> Revision {
    done(store.put(key(name), Bytes::from_static(b"1"), Condition::Always, lease).await.expect("a put fails")).0
}

/// A key cannot be put with a lease that nobody granted.
pub async fn lease_needs_to_exist(store: Arc<dyn Store>) {
    let before = put(&*store, "a", "1").await;
    match store.put(key("b"), Bytes::new(), Condition::Always, 12345).await {
        Err(StoreError::NoLease(12345)) => {}
        answer => panic!("a put with an unknown lease answers {answer:?}"),
    }
    assert_eq!(store.status().await.expect("status").revision, before, "the refused put wrote");
    let error = store.lease_revoke(12345).await.expect_err("an unknown lease was revoked");
    assert!(matches!(error, StoreError::NoLease(12345)), "{error}");
}

/// The keys go with their lease, watchers see it, others' keys stay.
pub async fn lease_revoke_deletes_its_keys(store: Arc<dyn Store>) {
    let (one, two) = (store.lease_grant(600).await.expect("a lease"), store.lease_grant(600).await.expect("a lease"));
    assert_ne!(one, two);
    put_leased(&*store, "a", one).await;
    put_leased(&*store, "b", one).await;
    put_leased(&*store, "c", two).await;
    put(&*store, "d", "1").await;
    assert_eq!(get(&*store, "a", 0).await.expect("the key").lease, one);
    let mut watch = start_watch(&*store, watch_all(0)).await;
    store.lease_revoke(one).await.expect("a revoke fails");
    let mut deleted: Vec<_> =
        next_events(&mut watch, 2).await.into_iter().map(|event| (event.kv.key, event.deleted)).collect();
    deleted.sort();
    assert_eq!(deleted, [(key("a"), true), (key("b"), true)]);
    assert_eq!(store.range(all()).await.expect("a range fails").count, 2);
    let error = store.lease_revoke(one).await.expect_err("a lease was revoked twice");
    assert!(matches!(error, StoreError::NoLease(_)), "{error}");
}

/// A lease that nobody keeps alive ends by itself.
pub async fn lease_expiry_deletes_its_keys(store: Arc<dyn Store>) {
    let lease = store.lease_grant(1).await.expect("a lease");
    put_leased(&*store, "a", lease).await;
    let mut watch = start_watch(&*store, watch_all(0)).await;
    let events = next_events(&mut watch, 1).await;
    assert!(events[0].deleted && events[0].kv.key == key("a"), "{events:?}");
    assert_eq!(get(&*store, "a", 0).await, None);
}

/// A lease that is kept alive outlives its time.
pub async fn lease_keep_alive_postpones_expiry(store: Arc<dyn Store>) {
    let lease = store.lease_grant(2).await.expect("a lease");
    put_leased(&*store, "a", lease).await;
    let started = std::time::Instant::now();
    let mut keep_alive = tokio::time::interval(Duration::from_millis(500));
    while started.elapsed() < Duration::from_secs(3) {
        keep_alive.tick().await;
        store.lease_keep_alive(lease).await.expect("a keep-alive fails");
    }
    assert!(get(&*store, "a", 0).await.is_some(), "the key went though its lease was kept alive");
}

/// A put without the lease takes the key out of it.
pub async fn lease_is_left_by_a_put_without_it(store: Arc<dyn Store>) {
    let (one, two) = (store.lease_grant(600).await.expect("a lease"), store.lease_grant(600).await.expect("a lease"));
    for name in ["a", "b", "c"] {
        put_leased(&*store, name, one).await;
    }
    put(&*store, "a", "2").await;
    put_leased(&*store, "b", two).await;
    delete(&*store, "c").await;
    put(&*store, "c", "2").await;
    store.lease_revoke(one).await.expect("a revoke fails");
    assert_eq!(store.range(all()).await.expect("a range fails").count, 3);
    store.lease_revoke(two).await.expect("a revoke fails");
    assert_eq!(get(&*store, "b", 0).await, None);
}

/// The end of a lease is final.
pub async fn lease_that_ended_cannot_be_kept_alive(store: Arc<dyn Store>) {
    let lease = store.lease_grant(600).await.expect("a lease");
    store.lease_keep_alive(lease).await.expect("a keep-alive fails");
    store.lease_revoke(lease).await.expect("a revoke fails");
    let error = store.lease_keep_alive(lease).await.expect_err("a dead lease was kept alive");
    assert!(matches!(error, StoreError::NoLease(_)), "{error}");
    let answer = store.put(key("a"), Bytes::new(), Condition::Always, lease).await;
    assert!(matches!(answer, Err(StoreError::NoLease(_))), "{answer:?}");
}
