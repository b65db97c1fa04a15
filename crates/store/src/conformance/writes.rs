//! Conditional writes and revisions.

use super::*;

/// A create succeeds once; then it answers what stands there.
pub async fn create_needs_absence(store: Arc<dyn Store>) {
    let (created, previous) = done(write(&*store, "a", "1", Condition::Absent).await);
    assert_eq!(previous, None, "nothing stood there");
    match write(&*store, "a", "2", Condition::Absent).await {
        WriteAnswer::Conflict { current: Some(current), revision } => {
            assert_eq!((&current.value[..], current.mod_revision, revision), (&b"1"[..], created, created));
        }
        answer => panic!("a second create answers {answer:?}"),
    }
    assert_eq!(get(&*store, "a", 0).await.expect("the key").value, "1", "a refused create wrote");
}

/// An update needs the revision of the last write, neither an older nor a newer one.
pub async fn update_needs_the_mod_revision(store: Arc<dyn Store>) {
    let created = put(&*store, "a", "1").await;
    let updated = done(write(&*store, "a", "2", Condition::ModRevision(created)).await).0;
    for stale in [created, updated + 1] {
        match write(&*store, "a", "3", Condition::ModRevision(stale)).await {
            WriteAnswer::Conflict { current: Some(current), .. } => assert_eq!(current.mod_revision, updated),
            answer => panic!("an update at {stale} instead of {updated} answers {answer:?}"),
        }
    }
    match write(&*store, "absent", "1", Condition::ModRevision(created)).await {
        WriteAnswer::Conflict { current: None, .. } => {}
        answer => panic!("an update of an absent key answers {answer:?}"),
    }
    assert_eq!(get(&*store, "a", 0).await.expect("the key").value, "2", "a refused update wrote");
}

/// A delete can be conditional too.
pub async fn delete_needs_the_mod_revision(store: Arc<dyn Store>) {
    let created = put(&*store, "a", "1").await;
    let updated = put(&*store, "a", "2").await;
    match store.delete(key("a"), Condition::ModRevision(created)).await.expect("a delete fails") {
        WriteAnswer::Conflict { current: Some(current), .. } => assert_eq!(current.mod_revision, updated),
        answer => panic!("a stale delete answers {answer:?}"),
    }
    let answer = store.delete(key("a"), Condition::ModRevision(updated)).await.expect("a delete fails");
    let (revision, previous) = done(answer);
    assert_eq!(revision, updated + 1);
    assert_eq!(previous.expect("the deleted key").value, "2");
    assert_eq!(get(&*store, "a", 0).await, None);
}

/// Deleting nothing changes nothing.
pub async fn delete_of_an_absent_key_takes_no_revision(store: Arc<dyn Store>) {
    let before = put(&*store, "a", "1").await;
    let answer = store.delete(key("absent"), Condition::Always).await.expect("a delete fails");
    assert_eq!(done(answer), (before, None));
    assert_eq!(put(&*store, "a", "2").await, before + 1, "the delete of an absent key took a revision");
}

/// One counter for the whole store, no gap; refused writes take none.
pub async fn every_write_takes_the_next_revision(store: Arc<dyn Store>) {
    let first = put(&*store, "a", "1").await;
    assert_eq!(put(&*store, "b", "1").await, first + 1);
    write(&*store, "a", "2", Condition::Absent).await;
    assert_eq!(delete(&*store, "a").await, first + 2);
    assert_eq!(put(&*store, "a", "same").await, first + 3);
    assert_eq!(put(&*store, "a", "same").await, first + 4, "an equal value is a write too");
    assert_eq!(store.status().await.expect("status").revision, first + 4);
}

/// A key that was deleted and written again is a new one.
pub async fn create_revision_starts_anew_after_a_delete(store: Arc<dyn Store>) {
    let created = put(&*store, "a", "1").await;
    put(&*store, "a", "2").await;
    assert_eq!(get(&*store, "a", 0).await.expect("the key").create_revision, created);
    delete(&*store, "a").await;
    let again = put(&*store, "a", "3").await;
    let kv = get(&*store, "a", 0).await.expect("the key");
    assert_eq!((kv.create_revision, kv.mod_revision), (again, again));
}

/// What a write replaced comes with its answer.
pub async fn answers_carry_what_stood_there(store: Arc<dyn Store>) {
    let created = put(&*store, "a", "1").await;
    let previous = done(write(&*store, "a", "2", Condition::Always).await).1.expect("the previous value");
    assert_eq!((&previous.value[..], previous.mod_revision), (&b"1"[..], created));
}

/// Writers that read, add one and write on condition lose no addition.
pub async fn concurrent_writers_of_one_key_are_linearizable(store: Arc<dyn Store>) {
    const WRITERS: usize = 8;
    const ADDITIONS: usize = 25;
    put(&*store, "counter", "0").await;
    let writers = (0..WRITERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut won = Vec::new();
            while won.len() < ADDITIONS {
                let current = get(&*store, "counter", 0).await.expect("the counter");
                let number: usize = String::from_utf8_lossy(&current.value).parse().expect("a number");
                let condition = Condition::ModRevision(current.mod_revision);
                match write(&*store, "counter", &(number + 1).to_string(), condition).await {
                    WriteAnswer::Done { revision, previous } => {
                        assert_eq!(previous, Some(current), "the write replaced something else");
                        won.push(revision);
                    }
                    WriteAnswer::Conflict { current: Some(newer), .. } => {
                        assert!(newer.mod_revision > current.mod_revision, "a conflict with the past");
                    }
                    WriteAnswer::Conflict { current: None, .. } => panic!("the counter is gone"),
                }
            }
            won
        })
    });
    let mut won: Vec<Revision> = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        won.extend(writer.await.expect("a writer panics"));
    }
    won.sort_unstable();
    won.dedup();
    assert_eq!(won.len(), WRITERS * ADDITIONS, "two writes had the same revision");
    let counter = get(&*store, "counter", 0).await.expect("the counter");
    assert_eq!(counter.value, (WRITERS * ADDITIONS).to_string());
    assert_eq!(Some(&counter.mod_revision), won.last());
}

/// Of many creates of one key at once, one wins, and the others see it.
pub async fn concurrent_creates_have_one_winner(store: Arc<dyn Store>) {
    let creates = (0..16).map(|number: usize| {
        let store = store.clone();
        tokio::spawn(async move { write(&*store, "a", &number.to_string(), Condition::Absent).await })
    });
    let (mut winners, mut seen) = (Vec::new(), Vec::new());
    for create in creates.collect::<Vec<_>>() {
        match create.await.expect("a create panics") {
            WriteAnswer::Done { revision, .. } => winners.push(revision),
            WriteAnswer::Conflict { current, .. } => seen.push(current.expect("the winner's value").mod_revision),
        }
    }
    assert_eq!(winners.len(), 1, "winners at {winners:?}");
    assert!(seen.iter().all(|revision| revision == &winners[0]), "losers saw {seen:?}, not {winners:?}");
}

/// Every engine has a limit below 64 MiB, says so, and goes on.
pub async fn too_large_a_write_is_refused(store: Arc<dyn Store>) {
    let size = 64 << 20;
    match store.put(key("large"), Bytes::from(vec![0; size]), Condition::Always, 0).await {
        Err(StoreError::TooLarge { size: told, limit }) => assert!(told >= size && limit < size),
        answer => panic!("a write of {size} bytes answers {answer:?}"),
    }
    let value = "x".repeat(1 << 20);
    put(&*store, "a", &value).await;
    assert_eq!(get(&*store, "a", 0).await.expect("the key").value, value, "1 MiB must pass");
}

/// Values are bytes: none, zeros, anything.
pub async fn empty_and_binary_values_are_kept(store: Arc<dyn Store>) {
    let binary = Bytes::from((0..=255u8).collect::<Vec<_>>());
    for (name, value) in [("empty", Bytes::new()), ("binary", binary)] {
        store.put(key(name), value.clone(), Condition::Always, 0).await.expect("a put fails");
        assert_eq!(get(&*store, name, 0).await.expect("the key").value, value);
    }
    assert_eq!(store.range(all()).await.expect("a range fails").count, 2);
}
