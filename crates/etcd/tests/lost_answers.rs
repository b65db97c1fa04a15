//! Writes whose connection breaks before anybody answers: what was done is never guessed.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ironkeel_etcd::{Config, Etcd};
use ironkeel_store::{Condition, Revision, Store, StoreError, WriteAnswer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use ironkeel_testkit::etcd::{Server, installed};

const KEY: &str = "/registry/configmaps/default/a";

/// Bytes go both ways.
const PASS: u8 = 0;
/// What the client says next is lost.
const LOSE_QUESTION: u8 = 1;
/// What the client says next arrives, and the answer is lost.
const LOSE_ANSWER: u8 = 2;

/// A way to etcd that breaks when a test says so.
struct Way {
    url: String,
    mode: AtomicU8,
    /// A question was held up, or an answer.
    held: Notify,
    /// The connection may break.
    go_on: Notify,
}

async fn way_to(server: &Server) -> Arc<Way> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (held, go_on) = (Notify::new(), Notify::new());
    let way = Arc::new(Way { url, mode: AtomicU8::new(PASS), held, go_on });
    let (kept, etcd) = (way.clone(), server.url.trim_start_matches("http://").to_owned());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&etcd).await.unwrap();
            tokio::spawn(carry(kept.clone(), client, server));
        }
    });
    way
}

async fn carry(way: Arc<Way>, mut client: TcpStream, mut server: TcpStream) {
    let (mut said, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut asked = false;
    loop {
        tokio::select! {
            n = client.read(&mut said) => {
                let Ok(n @ 1..) = n else { return };
                match way.mode.load(Ordering::Acquire) {
                    LOSE_QUESTION => break,
                    LOSE_ANSWER => asked = true,
                    _ => {}
                }
                if server.write_all(&said[..n]).await.is_err() {
                    return;
                }
            }
            n = server.read(&mut answered) => {
                let Ok(n @ 1..) = n else { return };
                // Acknowledgements of HTTP/2 are shorter than an answer.
                if asked && n > 40 {
                    break;
                }
                if client.write_all(&answered[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
    way.held.notify_one();
    way.go_on.notified().await;
    way.mode.store(PASS, Ordering::Release);
}

async fn put(store: &Etcd, value: &'static str, condition: Condition) -> Result<WriteAnswer, StoreError> {
    store.put(KEY.into(), Bytes::from_static(value.as_bytes()), condition, 0).await
}

fn revision(answer: Result<WriteAnswer, StoreError>) -> Revision {
    match answer.unwrap() {
        WriteAnswer::Done { revision, .. } => revision,
        answer => panic!("{answer:?}"),
    }
}

/// Puts `mine` on the revision that stands there while the way breaks, and `theirs` (by another server) meanwhile.
async fn between(
    mode: u8,
    mine: &'static str,
    theirs: Option<&'static str>,
) -> (Result<WriteAnswer, StoreError>, String, Revision) {
    let server = Server::start(&[]);
    let other = server.connect().await;
    let way = way_to(&server).await;
    let config = Config { endpoints: vec![way.url.clone()], ..server.config() };
    let store = Etcd::connect(config).await.unwrap();
    let first = revision(put(&other, "first", Condition::Always).await);
    assert!(store.get(KEY.as_bytes(), 0).await.unwrap().0.is_some());
    way.mode.store(mode, Ordering::Release);
    let writing = tokio::spawn(async move { put(&store, mine, Condition::ModRevision(first)).await });
    tokio::time::timeout(Duration::from_secs(10), way.held.notified()).await.expect("the write");
    if let Some(theirs) = theirs {
        revision(put(&other, theirs, Condition::ModRevision(first)).await);
    }
    way.go_on.notify_one();
    let answer = writing.await.unwrap();
    let there = other.get(KEY.as_bytes(), 0).await.unwrap().0.unwrap();
    (answer, String::from_utf8(there.value.to_vec()).unwrap(), there.mod_revision)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_servers_equal_bytes_are_not_taken_for_ones_own() {
    if !installed() {
        return;
    }
    let (answer, ..) = between(LOSE_QUESTION, "same", Some("same")).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_lost_is_made_again() {
    if !installed() {
        return;
    }
    let (answer, there, at) = between(LOSE_QUESTION, "mine", None).await;
    assert_eq!((revision(answer), there.as_str()), (at, "mine"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_another_one_forestalled_is_a_conflict() {
    if !installed() {
        return;
    }
    let (answer, _, at) = between(LOSE_QUESTION, "mine", Some("theirs")).await;
    match answer {
        Ok(WriteAnswer::Conflict { current: Some(current), .. }) => {
            assert_eq!((&current.value[..], current.mod_revision), (&b"theirs"[..], at));
        }
        answer => panic!("{answer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_was_lost_is_done_once_and_not_claimed() {
    if !installed() {
        return;
    }
    let (answer, there, _) = between(LOSE_ANSWER, "mine", None).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert_eq!(there, "mine");
}
