//! The work queue and expectations, as controllers use them.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ironkeel_informer::{Expectations, WorkQueue, run_workers, slow_start_batch};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_key_is_queued_once_and_never_with_two_workers() {
    let queue = WorkQueue::new();
    queue.add("a");
    queue.add("a");
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.get().await, Some("a"));
    queue.add("a");
    assert!(queue.is_empty(), "it is with a worker");
    queue.done(&"a");
    assert_eq!(queue.get().await, Some("a"));
    queue.done(&"a");
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_two_delays_the_earlier_counts() {
    let queue = WorkQueue::new();
    let start = tokio::time::Instant::now();
    queue.add_after("a", Duration::from_secs(60));
    queue.add_after("a", Duration::from_secs(1));
    queue.add_after("a", Duration::from_secs(30));
    assert_eq!(queue.get().await, Some("a"));
    assert_eq!(start.elapsed().as_secs(), 1);
    queue.done(&"a");
    queue.add_after("b", Duration::from_secs(5));
    assert_eq!(queue.get().await, Some("b"), "the longer delays of a are gone");
}

#[tokio::test(start_paused = true)]
async fn failures_wait_longer_each_time_until_they_are_forgotten() {
    let queue = WorkQueue::new();
    let mut waits = Vec::new();
    for round in 0..5 {
        if round == 4 {
            queue.forget(&"a");
        }
        let start = tokio::time::Instant::now();
        queue.add_rate_limited("a");
        queue.get().await.unwrap();
        waits.push(start.elapsed().as_millis());
        queue.done(&"a");
    }
    assert_eq!(waits, [5, 10, 20, 40, 5]);
}

#[tokio::test]
async fn workers_retry_what_fails_and_end_with_the_shutdown() {
    let queue = WorkQueue::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let shutdown = CancellationToken::new();
    queue.add(7);
    let (seen, stop) = (calls.clone(), shutdown.clone());
    run_workers(queue.clone(), 3, shutdown, move |_| {
        let (seen, stop) = (seen.clone(), stop.clone());
        async move {
            if seen.fetch_add(1, Ordering::SeqCst) < 2 {
                return Err("not yet");
            }
            stop.cancel();
            Ok(None)
        }
    })
    .await;
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert_eq!(queue.get().await, None);
}

#[tokio::test]
async fn batches_grow_and_stop_at_the_first_failure() {
    let calls = AtomicUsize::new(0);
    let (made, skipped, error) = slow_start_batch(10, |at| {
        calls.fetch_add(1, Ordering::SeqCst);
        async move { if at == 2 { Err("quota") } else { Ok(()) } }
    })
    .await;
    assert_eq!((made, skipped, error), (2, 7, Some("quota")));
    assert_eq!(calls.load(Ordering::SeqCst), 3, "one, then two, then no more");
}

#[test]
fn expectations_wait_for_what_was_asked_for() {
    let expectations = Expectations::new();
    assert!(expectations.satisfied("a"));
    expectations.expect_creations("a", 2);
    expectations.expect_deletions("a", ["p".to_owned()]);
    expectations.creation_observed("a");
    expectations.creation_observed("a");
    assert!(!expectations.satisfied("a"));
    expectations.deletion_observed("a", "q");
    assert!(!expectations.satisfied("a"));
    expectations.deletion_observed("a", "p");
    assert!(expectations.satisfied("a"));
}

#[tokio::test(start_paused = true)]
async fn queues_are_counted_under_the_name_of_their_file() {
    let queue = WorkQueue::new();
    queue.add("a");
    queue.add("a");
    queue.add("b");
    tokio::time::advance(Duration::from_secs(2)).await;
    let item = queue.get().await.unwrap();
    tokio::time::advance(Duration::from_secs(3)).await;
    let page = || {
        let mut text = ironkeel_metrics::Text::new(ironkeel_metrics::Form::Prometheus);
        ironkeel_informer::render_queues(&mut text);
        text.finish()
    };
    let name = "{name=\"crates/informer/tests/queue\"}";
    let number = |family: &str| -> f64 {
        let page = page();
        let line =
            page.lines().find(|l| l.starts_with(&format!("{family}{name} "))).unwrap_or_else(|| panic!("{page}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert!(number("workqueue_adds_total") >= 2.0);
    assert!(number("workqueue_depth") >= 1.0);
    assert!(number("workqueue_unfinished_work_seconds") >= 3.0);
    assert!(number("workqueue_longest_running_processor_seconds") >= 3.0);
    assert!(number("workqueue_queue_duration_seconds_sum") >= 2.0);
    queue.add_rate_limited(item);
    queue.done(&item);
    assert!(number("workqueue_retries_total") >= 1.0);
    assert!(number("workqueue_work_duration_seconds_sum") >= 3.0);
}
