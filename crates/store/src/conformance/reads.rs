//! Ranges and snapshot reads.

use super::*;

fn names(kvs: &[KeyValue]) -> Vec<String> {
    let name = |kv: &KeyValue| String::from_utf8_lossy(&kv.key[key("").len()..]).into_owned();
    kvs.iter().map(name).collect()
}

/// Keys in the order of their bytes, the start in, the end out.
pub async fn range_is_ordered_and_half_open(store: Arc<dyn Store>) {
    for name in ["c", "a", "b/1", "b", "d"] {
        put(&*store, name, name).await;
    }
    let answer = store.range(all()).await.expect("a range fails");
    assert_eq!(names(&answer.kvs), ["a", "b", "b/1", "c", "d"]);
    assert_eq!(answer.count, 5);
    let range = Range { start: key("b"), end: key("d"), ..Range::default() };
    assert_eq!(names(&store.range(range).await.expect("a range fails").kvs), ["b", "b/1", "c"]);
    let one = Range { start: key("b"), ..Range::default() };
    assert_eq!(names(&store.range(one).await.expect("a range fails").kvs), ["b"]);
    let empty = Range { start: key("x"), end: key("b"), ..Range::default() };
    assert_eq!(store.range(empty).await.expect("an empty range fails").count, 0);
}

/// A limit cuts the answer, not the count.
pub async fn range_limit_still_counts_all(store: Arc<dyn Store>) {
    for number in 0..10 {
        put(&*store, &format!("{number}"), "").await;
    }
    let answer = store.range(Range { limit: 3, ..all() }).await.expect("a range fails");
    assert_eq!((names(&answer.kvs), answer.count), (vec!["0".to_owned(), "1".to_owned(), "2".to_owned()], 10));
}

/// Values and keys can be left out.
pub async fn range_keys_only_and_count_only(store: Arc<dyn Store>) {
    let revision = put(&*store, "a", "value").await;
    let keys = store.range(Range { keys_only: true, ..all() }).await.expect("a range fails");
    assert_eq!((keys.kvs[0].mod_revision, keys.kvs[0].value.len(), keys.count), (revision, 0, 1));
    let count = store.range(Range { count_only: true, ..all() }).await.expect("a range fails");
    assert_eq!((count.kvs.len(), count.count, count.revision), (0, 1, revision));
    let one = Range { start: key("a"), count_only: true, ..Range::default() };
    let one = store.range(one).await.expect("a range fails");
    assert_eq!((one.kvs.len(), one.count), (0, 1));
}

/// An end of one zero byte is none.
pub async fn range_from_a_key_on(store: Arc<dyn Store>) {
    for name in ["a", "b", "c"] {
        put(&*store, name, "").await;
    }
    let range = Range { start: key("b"), end: Bytes::from_static(&[0]), ..Range::default() };
    assert_eq!(names(&store.range(range).await.expect("a range fails").kvs), ["b", "c"]);
}

/// Every revision can be read as it was.
pub async fn reads_as_of_a_revision_are_snapshots(store: Arc<dyn Store>) {
    let first = put(&*store, "a", "1").await;
    put(&*store, "b", "1").await;
    put(&*store, "a", "2").await;
    delete(&*store, "b").await;
    put(&*store, "b", "3").await;
    let wanted: [&[(&str, &str)]; 5] =
        [&[("a", "1")], &[("a", "1"), ("b", "1")], &[("a", "2"), ("b", "1")], &[("a", "2")], &[("a", "2"), ("b", "3")]];
    for (revision, wanted) in (first..).zip(wanted) {
        let answer = store.range(Range { revision, ..all() }).await.expect("a range fails");
        let found: Vec<_> = names(&answer.kvs).into_iter().zip(answer.kvs.iter().map(|kv| kv.value.clone())).collect();
        let wanted: Vec<_> = wanted.iter().map(|(name, value)| ((*name).to_owned(), Bytes::from(*value))).collect();
        assert_eq!(found, wanted, "as of revision {revision}");
        assert_eq!(answer.revision, first + 4, "the answer tells the store's revision");
        for name in ["a", "b"] {
            let single = get(&*store, name, revision).await.map(|kv| kv.value);
            let ranged = wanted.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
            assert_eq!(single, ranged, "{name} as of revision {revision}");
        }
    }
}

/// Pages of one revision fit together, whatever is written between them.
pub async fn paging_at_a_revision_is_consistent_under_writes(store: Arc<dyn Store>) {
    const KEYS: usize = 100;
    for number in 0..KEYS {
        put(&*store, &format!("{number:03}"), "old").await;
    }
    let mut range = Range { limit: 7, ..all() };
    let mut found = Vec::new();
    loop {
        let answer = store.range(range.clone()).await.expect("a page fails");
        if range.revision == 0 {
            range.revision = answer.revision;
        }
        let Some(last) = answer.kvs.last() else { break };
        assert_eq!(answer.count as usize, KEYS - found.len(), "the count is of what is left in the range");
        range.start = Bytes::from([&last.key[..], &[0]].concat());
        found.extend(answer.kvs);
        put(&*store, &format!("{:03}", found.len()), "new").await;
        put(&*store, &format!("{:03}-between", found.len()), "new").await;
        delete(&*store, &format!("{:03}", (found.len() + 3) % KEYS)).await;
    }
    assert_eq!(found.len(), KEYS);
    assert!(found.iter().all(|kv| kv.value == "old"), "a page shows a later write");
}

/// What has not happened cannot be read.
pub async fn reads_of_the_future_are_refused(store: Arc<dyn Store>) {
    let current = put(&*store, "a", "1").await;
    let future = StoreError::FutureRevision { requested: current + 1, current }.to_string();
    let get = store.get(&key("a"), current + 1).await.expect_err("a get from the future");
    assert_eq!(get.to_string(), future);
    let range = store.range(Range { revision: current + 1, ..all() }).await.expect_err("a range from the future");
    assert_eq!(range.to_string(), future);
}
