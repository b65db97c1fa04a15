//! What the engine-independent suite does not know: connections that break, members that die, TLS,
//! prefixes, compaction in turns, full disks.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use ironkeel_etcd::{Config, Etcd, EtcdError};
use ironkeel_store::{
    Condition, Event, Range, Revision, Store, StoreError, WatchItem, WatchRange, WatchStream, WriteAnswer, prefix_end,
};
use ironkeel_testkit::etcd::{Server, installed};
use ironkeel_testkit::free_port;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

const PATIENCE: Duration = Duration::from_secs(20);

fn all() -> WatchRange {
    WatchRange { start: "/registry/".into(), end: prefix_end(b"/registry/"), progress: true, ..WatchRange::default() }
}

async fn put(store: &Etcd, key: &str, value: impl Into<Bytes>) -> Result<Revision, StoreError> {
    match store.put(key.to_owned().into(), value.into(), Condition::Always, 0).await? {
        WriteAnswer::Done { revision, .. } => Ok(revision),
        WriteAnswer::Conflict { .. } => panic!("a put without a condition conflicts"),
    }
}

/// Events up to and including a revision.
async fn events_until(watch: &mut WatchStream, last: Revision) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|event| event.kv.mod_revision < last) {
        let item = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch stays silent");
        if let WatchItem::Events(more) = item.expect("the watch ends").expect("the watch fails") {
            events.extend(more);
        }
    }
    events
}

/// Writers of keys of their own, until told to stop; each answers what was acknowledged to it. What
/// nobody answered is left alone: it may or may not be there.
fn load(store: &Arc<Etcd>, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<Vec<(String, Revision)>>> {
    let writer = |writer: usize| {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            let mut done = Vec::new();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("/registry/load/{writer}-{number:06}");
                let put = store.put(key.clone().into(), Bytes::from_static(b"x"), Condition::Absent, 0).await;
                match put {
                    Ok(WriteAnswer::Done { revision, .. }) => done.push((key, revision)),
                    Ok(WriteAnswer::Conflict { .. }) => panic!("{key} was written before"),
                    Err(StoreError::Unavailable(_)) => {}
                    Err(error) => panic!("{key}: {error}"),
                }
            }
            done
        })
    };
    (0..8).map(writer).collect()
}

/// Nothing acknowledged is lost, and the watch has each write once, at its revision, in order.
async fn complete(store: &Etcd, watch: &mut WatchStream, acknowledged: Vec<(String, Revision)>) {
    let range = Range { start: "/registry/load/".into(), end: prefix_end(b"/registry/load/"), ..Range::default() };
    let stored = store.range(range).await.unwrap();
    let last = stored.kvs.iter().map(|kv| kv.mod_revision).max().unwrap();
    let events = events_until(watch, last).await;
    assert!(events.is_sorted_by(|a, b| a.kv.mod_revision < b.kv.mod_revision), "out of order, or twice");
    let mut seen: Vec<_> = events.into_iter().map(|e| (e.kv.key, e.kv.mod_revision)).collect();
    seen.sort();
    let mut there: Vec<_> = stored.kvs.into_iter().map(|kv| (kv.key, kv.mod_revision)).collect();
    there.sort();
    assert_eq!(seen.len(), there.len(), "the watch has missed or invented writes");
    assert_eq!(seen, there);
    for (key, revision) in acknowledged {
        let found = there.binary_search(&(key.clone().into(), revision));
        assert!(found.is_ok(), "{key} was acknowledged at {revision}, and is not there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_loses_nothing_when_one_is_killed_under_load() {
    if !installed() {
        return;
    }
    let mut servers = Server::start_three();
    let endpoints = servers.iter().map(|s| s.url.clone()).collect();
    let config = Config { endpoints, call_patience: PATIENCE, ..servers[0].config() };
    let store = Etcd::connect(config).await.unwrap();
    let first = put(&store, "/registry/begin", "x").await.unwrap();
    let mut watch = store.watch(WatchRange { from: first + 1, ..all() }).await.unwrap().1;
    let stop = Arc::new(AtomicBool::new(false));
    let writers = load(&store, &stop);
    // Each in turn: one of them leads, and one of them carries the watches.
    for server in &mut servers {
        reach(&store, 200).await;
        server.kill();
        reach(&store, 200).await;
        server.restart();
        settled(server).await;
    }
    reach(&store, 200).await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(acknowledged.len() > 500, "only {} writes were acknowledged", acknowledged.len());
    complete(&store, &mut watch, acknowledged).await;
}

/// Waits for so many more revisions.
async fn reach(store: &Etcd, more: u64) {
    let started = Instant::now();
    let mut target = None;
    while started.elapsed() < PATIENCE {
        if let Ok(now) = store.current_revision().await
            && now >= *target.get_or_insert(now + more)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no progress of the cluster");
}

/// Waits for a member to answer linearizable reads again.
async fn settled(server: &Server) {
    let config = Config { call_patience: PATIENCE, ..server.config() };
    Etcd::connect(config).await.unwrap().close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_and_writers_survive_a_restart_of_the_only_server() {
    if !installed() {
        return;
    }
    let mut server = Server::start(&[]);
    let store = server.connect().await;
    let first = put(&store, "/registry/begin", "x").await.unwrap();
    let mut watch = store.watch(WatchRange { from: first + 1, ..all() }).await.unwrap().1;
    let stop = Arc::new(AtomicBool::new(false));
    let writers = load(&store, &stop);
    for _ in 0..2 {
        reach(&store, 200).await;
        server.restart();
    }
    reach(&store, 200).await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    complete(&store, &mut watch, acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_resumed_where_its_buffer_ended() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    let store = Etcd::connect(Config { watch_buffer_events: 10, ..server.config() }).await.unwrap();
    let mut watch = store.watch(all()).await.unwrap().1;
    let mut quick = store.watch(all()).await.unwrap().1;
    let first = put(&store, "/registry/a", "0").await.unwrap();
    let mut last = first;
    for number in 1..200 {
        last = put(&store, "/registry/a", number.to_string()).await.unwrap();
        events_until(&mut quick, last).await;
    }
    let seen: Vec<_> = events_until(&mut watch, last).await.into_iter().map(|e| e.kv.mod_revision).collect();
    assert_eq!(seen, (first..=last).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_come_in_pieces_are_put_together() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    let store = server.connect().await;
    let value = Bytes::from(vec![b'x'; 1 << 20]);
    let first = put(&store, "/registry/0", value.clone()).await.unwrap();
    let mut last = first;
    for number in 1..8 {
        last = put(&store, &format!("/registry/{number}"), value.clone()).await.unwrap();
    }
    let mut watch = store.watch(WatchRange { from: first, ..all() }).await.unwrap().1;
    let events = events_until(&mut watch, last).await;
    assert_eq!(events.len(), 8);
    assert!(events.iter().all(|e| e.kv.value == value));
    let range = Range { start: "/registry/".into(), end: prefix_end(b"/registry/"), ..Range::default() };
    assert_eq!(store.range(range).await.unwrap().kvs.len(), 8, "a list of more than 4 MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_prefix_keeps_two_clusters_apart() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    let plain = server.connect().await;
    let other = Etcd::connect(Config { prefix: "/other/place".into(), ..server.config() }).await.unwrap();
    let mut watch = other.watch(all()).await.unwrap().1;
    put(&plain, "/registry/pods/a", "plain").await.unwrap();
    let last = put(&other, "/registry/pods/a", "other").await.unwrap();
    let events = events_until(&mut watch, last).await;
    assert_eq!(events.len(), 1, "events of the other cluster");
    assert_eq!((&events[0].kv.key[..], &events[0].kv.value[..]), (&b"/registry/pods/a"[..], &b"other"[..]));
    for (store, value) in [(&plain, "plain"), (&other, "other")] {
        let range = Range { start: "/registry/".into(), end: prefix_end(b"/registry/"), ..Range::default() };
        let kvs = store.range(range).await.unwrap().kvs;
        assert_eq!(kvs.len(), 1);
        assert_eq!((&kvs[0].key[..], &kvs[0].value[..]), (&b"/registry/pods/a"[..], value.as_bytes()));
    }
    let raw = plain.get(b"/other/place/pods/a", 0).await.unwrap().0.unwrap();
    assert_eq!(raw.value, "other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_one_etcd_compact_it_in_turns() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    let interval = Duration::from_millis(300);
    let config = Config { compaction_interval: interval, ..server.config() };
    let (one, two) = (Etcd::connect(config.clone()).await.unwrap(), Etcd::connect(config).await.unwrap());
    let first = put(&one, "/registry/a", "1").await.unwrap();
    put(&one, "/registry/a", "2").await.unwrap();
    let begun = Instant::now();
    let compacted = loop {
        match two.get(b"/registry/a", first).await {
            Err(StoreError::Compacted { compacted, .. }) => break compacted,
            Ok(_) => assert!(begun.elapsed() < PATIENCE, "nobody compacts"),
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(begun.elapsed() >= interval, "history was kept for less than an interval");
    assert!(compacted > first);
    tokio::time::sleep(interval * 4).await;
    let clock = one.get(b"compact_rev_key", 0).await.unwrap().0.expect("upstream's key");
    let recorded: u64 = String::from_utf8_lossy(&clock.value).parse().expect("a revision");
    assert!(recorded >= compacted, "{recorded} is not what was compacted");
    let ticks = begun.elapsed().as_millis() / interval.as_millis() + 1;
    let range = Range { start: "compact_rev_key".into(), ..Range::default() };
    let writes = one.range(range).await.unwrap().revision - first - 1;
    assert!(u128::from(writes) <= ticks, "{writes} compactions in {ticks} intervals: the servers do not take turns");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_says_so_and_goes_on_reading() {
    if !installed() {
        return;
    }
    let server = Server::start(&["--quota-backend-bytes", "4000000"]);
    let store = server.connect().await;
    let value = Bytes::from(vec![b'x'; 1 << 20]);
    let full = async {
        // etcd looks at its size ten times a second; what comes between fits.
        for number in 0..400 {
            if let Err(error) = put(&store, &format!("/registry/{number}"), value.clone()).await {
                return error;
            }
        }
        panic!("400 MiB fit into 4");
    };
    let error = full.await;
    assert!(matches!(&error, StoreError::NoSpace(why) if why.contains("database space exceeded")), "{error}");
    assert_eq!(store.get(b"/registry/0", 0).await.unwrap().0.unwrap().value, value);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_needs_the_authority_and_the_client_certificate() {
    if !installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let authority = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        (cert.pem(), Issuer::new(params, key))
    };
    let (ca_pem, issuer) = authority("etcd-ca");
    let (stranger_pem, _) = authority("stranger");
    let issue = |name: &str, usages: &[ExtendedKeyUsagePurpose]| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = usages.to_vec();
        let cert = params.signed_by(&key, &issuer).unwrap();
        (file(&format!("{name}.crt"), &cert.pem()), file(&format!("{name}.key"), &key.serialize_pem()))
    };
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let (server_cert, server_key) = issue("server", &both);
    let (cert, key) = issue("client", &[ExtendedKeyUsagePurpose::ClientAuth]);
    let (ca, stranger) = (file("ca.crt", &ca_pem), file("stranger.crt", &stranger_pem));
    let server = Server::start_tls(&ca, &server_cert, &server_key);
    let good = Config { ca: Some(ca), cert: Some(cert), key: Some(key), ..server.config() };
    let store = Etcd::connect(good.clone()).await.unwrap();
    let mut watch = store.watch(all()).await.unwrap().1;
    let last = put(&store, "/registry/a", "1").await.unwrap();
    assert_eq!(events_until(&mut watch, last).await.len(), 1);

    let short = Duration::from_millis(200);
    let good = Config { call_patience: short, start_patience: 2 * short, ..good };
    let wrong = Config { ca: Some(stranger), ..good.clone() };
    let error = Etcd::connect(wrong).await.unwrap_err().to_string();
    assert!(error.contains("certificate") && error.contains(&server.url), "{error}");
    let nobody = Config { cert: None, key: None, ..good.clone() };
    let error = Etcd::connect(nobody).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    let half = Config { key: None, ..good.clone() };
    assert!(matches!(Etcd::connect(half).await, Err(EtcdError::HalfAnIdentity)));
    let missing = Config { ca: Some(dir.path().join("none")), ..good };
    let error = Etcd::connect(missing).await.unwrap_err().to_string();
    assert!(error.contains("/none"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let port = free_port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let call_patience = Duration::from_millis(200);
    let start_patience = 2 * call_patience;
    let config = Config { endpoints: vec![endpoint.clone()], call_patience, start_patience, ..Config::default() };
    let error = Etcd::connect(config).await.unwrap_err().to_string();
    assert!(error.contains(&endpoint) && error.contains("refused"), "{error}");
    assert!(matches!(Etcd::connect(Config::default()).await, Err(EtcdError::NoEndpoints)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_ends_its_watches() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    let store = server.connect().await;
    let mut watch = store.watch(all()).await.unwrap().1;
    store.close();
    let end = loop {
        match tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap() {
            Ok(WatchItem::Progress(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Err(StoreError::Closed(_))), "{end:?}");
    assert!(watch.next().await.is_none());
    assert!(matches!(store.get(b"/registry/a", 0).await, Err(StoreError::Closed(_))));
    assert!(matches!(store.watch(all()).await, Err(StoreError::Closed(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_reach_revisions_that_have_no_event() {
    if !installed() {
        return;
    }
    let server = Server::start(&[]);
    let store = server.connect().await;
    // Etcd drops what a compaction covers some time after it has answered: until then the deletion is an
    // event, and the watch is begun anew.
    let reaches = async |from: Revision, wanted: Revision| 'begin: loop {
        let mut watch = store.watch(WatchRange { from, ..all() }).await.unwrap().1;
        loop {
            let item = tokio::time::timeout(PATIENCE, watch.next()).await.expect("no progress").unwrap().unwrap();
            match item {
                WatchItem::Progress(revision) if revision >= wanted => return,
                WatchItem::Progress(_) => {}
                WatchItem::Events(events) if events.iter().all(|e| e.deleted && e.kv.mod_revision == wanted) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue 'begin;
                }
                WatchItem::Events(events) => panic!("events that nobody made: {events:?}"),
            }
        }
    };
    let empty = store.current_revision().await.unwrap();
    reaches(1, empty).await;
    put(&store, "/registry/a", "1").await.unwrap();
    let deleted = match store.delete("/registry/a".into(), Condition::Always).await.unwrap() {
        WriteAnswer::Done { revision, .. } => revision,
        answer => panic!("{answer:?}"),
    };
    store.compact(deleted).await.unwrap();
    store.current_revision().await.unwrap();
    tokio::time::timeout(PATIENCE, reaches(deleted, deleted)).await.expect("the deletion stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_a_leader_and_says_when_there_is_none() {
    if !installed() {
        return;
    }
    let mut servers = Server::start_three();
    servers[1..].iter_mut().for_each(Server::kill);
    let config = Config { start_patience: Duration::from_secs(2), ..servers[0].config() };
    let error = Etcd::connect(config).await.unwrap_err().to_string();
    assert!(error.contains("no leader was elected within 2 s") && error.contains(&servers[0].url), "{error}");
    let waiting = tokio::spawn(Etcd::connect(servers[0].config()));
    servers[1..].iter_mut().for_each(Server::restart);
    let store = waiting.await.unwrap().unwrap();
    put(&store, "/registry/a", "1").await.unwrap();
}
