//! Crashes and damage: kill -9, torn and flipped bytes, full and slow disks, locks, newer formats.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ironkeel_embedded::{Disk, Embedded, EmbeddedError, Options, RealDisk};
use ironkeel_store::{Condition, Range, Store, StoreError, WriteAnswer, prefix_end};
use rand::Rng;

/// Set in the child process that is killed: the data directory that it writes.
const WORKER_DIR: &str = "IRONKEEL_CRASH_WORKER_DIR";
const KILL_ROUNDS: usize = 25;
const WORKER_TASKS: u64 = 16;
const HEADER_BYTES: u64 = 48;

async fn put(store: &dyn Store, key: &str, value: impl Into<Bytes>) -> Result<u64, StoreError> {
    match store.put(key.to_owned().into(), value.into(), Condition::Always, 0).await? {
        WriteAnswer::Done { revision, .. } => Ok(revision),
        WriteAnswer::Conflict { .. } => panic!("an unconditional put conflicts"),
    }
}

fn everything() -> Range {
    Range { start: "/".into(), end: prefix_end(b"/"), ..Range::default() }
}

/// A value that shows whether it is whole: its number, then as many bytes as that decides.
fn value_of(number: u64) -> Vec<u8> {
    let mut value = format!("{number}:").into_bytes();
    value.resize(value.len() + (number * 37 % 3000) as usize, b'a' + (number % 26) as u8);
    value
}

fn number_of(value: &[u8]) -> u64 {
    let digits = value.split(|byte| *byte == b':').next().unwrap();
    let number = std::str::from_utf8(digits).unwrap().parse().unwrap();
    assert_eq!(value, value_of(number), "a half-written value");
    number
}

fn small_segments() -> Options {
    Options {
        segment_bytes: 256 << 10,
        reclaim_min_bytes: 64 << 10,
        compaction_interval: Duration::from_millis(50),
        ..Options::default()
    }
}

/// The child's part of the test below: writes for ever and says on stdout what was acknowledged.
#[test]
fn worker() {
    let Ok(dir) = std::env::var(WORKER_DIR) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Embedded::open(&dir, small_segments()).unwrap();
        let tasks = (0..WORKER_TASKS).map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = format!("/{task:02}");
                let found = store.get(key.as_bytes(), 0).await.unwrap().0;
                let mut number = found.map_or(0, |kv| number_of(&kv.value));
                loop {
                    number += 1;
                    let revision = put(&*store, &key, value_of(number)).await.unwrap();
                    // One write to a pipe, short enough to be whole.
                    io::stdout().write_all(format!("ack {task} {number} {revision}\n").as_bytes()).unwrap();
                }
            })
        });
        futures::future::join_all(tasks).await;
    });
}

#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acknowledged = [(0u64, 0u64); WORKER_TASKS as usize];
    let (mut torn, mut reclaimed) = (0, 0);
    for round in 0..KILL_ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["worker", "--exact", "--nocapture", "--test-threads=1"])
            .env(WORKER_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let kill_after = Duration::from_millis(rand::rng().random_range(5..250));
        let mut first = None;
        let mut killed = false;
        // After the kill, the rest of the pipe is read: those writes were acknowledged, too.
        while let Some(Ok(line)) = lines.next() {
            let started = *first.get_or_insert_with(Instant::now);
            if !killed && started.elapsed() > kill_after {
                child.kill().unwrap();
                killed = true;
            }
            let Some(at) = line.find("ack ") else { continue };
            let words: Vec<u64> = line[at + 4..].split(' ').filter_map(|word| word.parse().ok()).collect();
            if let [task, number, revision] = words[..]
                && line.ends_with(&revision.to_string())
            {
                let last = &mut acknowledged[task as usize];
                assert!(revision > last.1, "round {round}: revision {revision} after {}", last.1);
                *last = (number, revision);
            }
        }
        child.wait().unwrap();
        assert!(killed, "round {round}: the worker ended by itself");

        let store = Embedded::open(dir.path(), small_segments()).unwrap();
        let now = runtime.block_on(async {
            let mut now = Vec::new();
            let status = store.status().await.unwrap();
            torn += usize::from(status.recovery.is_some());
            reclaimed = reclaimed.max(status.compacted);
            for (task, (number, revision)) in acknowledged.iter().enumerate() {
                assert!(status.revision >= *revision, "round {round}: the store went back to {}", status.revision);
                let found = store.get(format!("/{task:02}").as_bytes(), 0).await.unwrap().0;
                let (found, at) = found.map_or((0, 0), |kv| (number_of(&kv.value), kv.mod_revision));
                assert!(found >= *number, "round {round}: task {task} lost {number}, has {found}");
                assert!(at >= *revision && at <= status.revision, "round {round}: revision {at}");
                // At most the one write that was under way can be there without an acknowledgement.
                assert!(found <= number + 1, "round {round}: task {task} wrote {number}, has {found}");
                now.push((found, at));
            }
            store.close().await;
            now
        });
        acknowledged.copy_from_slice(&now);
    }
    let writes: u64 = acknowledged.iter().map(|(number, _)| number).sum();
    println!("{KILL_ROUNDS} kills, {writes} acknowledged writes, {torn} torn tails, compacted up to {reclaimed}");
    assert!(reclaimed > 0, "no compaction ran under the kills");
}

/// A closed store of a few batches in one segment; answers it and where each batch begins.
fn small_store(dir: &Path) -> (PathBuf, Vec<u8>, Vec<u64>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let path = dir.join(format!("{:016x}.log", 1));
    let mut starts = Vec::new();
    let store = Embedded::open(dir, Options::default()).unwrap();
    runtime.block_on(async {
        for number in 0..4 {
            starts.push(fs::metadata(&path).unwrap().len());
            put(&*store, &format!("/{number}"), format!("value {number}")).await.unwrap();
        }
        store.close().await;
    });
    drop(store);
    (path.clone(), fs::read(&path).unwrap(), starts)
}

/// Opens a directory with such a log; answers the revision and what was noticed.
fn reopen(bytes: &[u8]) -> Result<(u64, Option<String>, usize), EmbeddedError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(format!("{:016x}.log", 1)), bytes).unwrap();
    let store = Embedded::open(dir.path(), Options::default())?;
    Ok(runtime.block_on(async {
        let status = store.status().await.unwrap();
        let kvs = store.range(everything()).await.unwrap().kvs;
        for (number, kv) in kvs.iter().enumerate() {
            assert_eq!(
                (&kv.key[..], &kv.value[..]),
                (format!("/{number}").as_bytes(), format!("value {number}").as_bytes())
            );
        }
        // What was recovered goes on.
        assert_eq!(put(&*store, "/z", "more").await.unwrap(), status.revision + 1);
        (status.revision, status.recovery, kvs.len())
    }))
}

#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (_, bytes, starts) = small_store(dir.path());
    let last = starts[3] as usize;
    assert_eq!(reopen(&bytes).unwrap(), (4, None, 4));
    for length in last..bytes.len() {
        let (revision, note, keys) = reopen(&bytes[..length]).unwrap();
        assert_eq!((revision, keys), (3, 3), "cut at byte {length}");
        match note {
            Some(note) => assert!(length > last && note.contains(&format!("offset {last}")), "at {length}: {note}"),
            None => assert_eq!(length, last, "a torn tail went unnoticed"),
        }
        // A file system may have made the file longer without its bytes.
        let mut zeros = bytes[..length].to_vec();
        zeros.resize(bytes.len() + 4096, 0);
        assert_eq!(reopen(&zeros).unwrap().0, 3, "zeros from byte {length} on");
    }
}

#[test]
fn every_flipped_byte_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let (_, bytes, starts) = small_store(dir.path());
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let record = starts.iter().rev().find(|start| **start <= at as u64).copied();
            match (reopen(&damaged), record) {
                (Err(EmbeddedError::Store(StoreError::Corrupt { offset, path, .. })), None) => {
                    assert_eq!(offset, 0, "byte {at} of the header");
                    assert!(path.ends_with(".log"));
                }
                (Err(EmbeddedError::Store(StoreError::Corrupt { offset, .. })), Some(record)) => {
                    assert_eq!(offset, record, "byte {at} of the record at {record}");
                    assert!(record < starts[3], "byte {at}: the last batch counts as torn");
                }
                (Ok((revision, note, _)), Some(record)) => {
                    assert_eq!(record, starts[3], "byte {at}: a damaged middle went unnoticed");
                    assert_eq!(revision, 3, "byte {at}");
                    assert!(note.unwrap().contains(&format!("offset {record}")));
                }
                (outcome, _) => panic!("byte {at}: {outcome:?}"),
            }
        }
    }
}

#[test]
fn a_batch_whose_first_record_did_not_reach_the_disk_is_torn_not_corrupt() {
    // Power loss may keep the second page of an unsynced batch and lose the first.
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let gate = Arc::new(SlowDisk::default());
    let options = Options { disk: gate.clone(), ..Options::default() };
    let store = Embedded::open(dir.path(), options).unwrap();
    let path = dir.path().join(format!("{:016x}.log", 1));
    let start = runtime.block_on(async {
        put(&*store, "/0", "value 0").await.unwrap();
        let start = fs::metadata(&path).unwrap().len();
        // While the disk is busy with one write, the others gather into one batch.
        let entered = gate.entered.load(Ordering::SeqCst);
        gate.busy.store(true, Ordering::SeqCst);
        let first = tokio::spawn({
            let store = store.clone();
            async move { put(&*store, "/1", "x").await.unwrap() }
        });
        while gate.entered.load(Ordering::SeqCst) == entered {
            tokio::task::yield_now().await;
        }
        let keys: Vec<String> = (2..10).map(|number| format!("/{number}")).collect();
        let mut others = futures::future::join_all(keys.iter().map(|key| put(&*store, key, "x")));
        assert!(futures::poll!(&mut others).is_pending());
        gate.busy.store(false, Ordering::SeqCst);
        first.await.unwrap();
        assert!(others.await.iter().all(Result::is_ok));
        start
    });
    drop(store);
    let bytes = fs::read(&path).unwrap();
    // The last batch begins at the durable offset that its last record names.
    let record = 8 + 40 + 2 + 1;
    let durable = u64::from_le_bytes(bytes[bytes.len() - record + 16..][..8].try_into().unwrap());
    assert!(durable >= start && durable < (bytes.len() - record) as u64, "a batch of several records");
    let mut torn = bytes.clone();
    torn[durable as usize..durable as usize + 20].fill(0);
    fs::write(&path, torn).unwrap();
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    let status = runtime.block_on(store.status()).unwrap();
    assert!(status.recovery.unwrap().contains(&format!("offset {durable}")));
}

#[test]
fn damage_in_a_sealed_segment_and_a_missing_one_stop_the_open() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { segment_bytes: 4096, ..Options::default() };
    let store = Embedded::open(dir.path(), options()).unwrap();
    runtime.block_on(async {
        for number in 0..20 {
            put(&*store, &format!("/{number}"), vec![b'x'; 1000]).await.unwrap();
        }
    });
    drop(store);
    let segment = |number: u64| dir.path().join(format!("{number:016x}.log"));
    let good = fs::read(segment(2)).unwrap();
    let check = |what: &str, wanted_path: PathBuf, wanted_offset: Option<u64>| {
        match Embedded::open(dir.path(), options()) {
            Err(EmbeddedError::Store(StoreError::Corrupt { path, offset, .. })) => {
                assert_eq!(path, wanted_path.display().to_string(), "{what}");
                assert!(wanted_offset.is_none_or(|wanted| wanted == offset), "{what}: offset {offset}");
            }
            outcome => panic!("{what}: {outcome:?}"),
        };
    };
    // Its last record: in the last segment it would count as torn.
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(segment(2), &damaged).unwrap();
    check("a flipped last byte", segment(2), None);
    // Cut just between two records: every record that is left is good.
    let record = u32::from_le_bytes(good[48..52].try_into().unwrap()) as usize + 8;
    fs::write(segment(2), &good[..HEADER_BYTES as usize + record]).unwrap();
    check("a lost tail", segment(2), Some(HEADER_BYTES + record as u64));
    fs::remove_file(segment(2)).unwrap();
    check("a missing segment", segment(2), None);
    fs::write(segment(2), &good).unwrap();
    let store = Embedded::open(dir.path(), options()).unwrap();
    assert_eq!(runtime.block_on(store.status()).unwrap().keys, 20);
}

#[test]
fn a_newer_format_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut bytes, _) = small_store(dir.path());
    bytes[8..12].copy_from_slice(&7u32.to_le_bytes());
    let crc = crc(&bytes[..44]);
    bytes[44..48].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let error = Embedded::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, EmbeddedError::NewerFormat { found: 7, supported: 1, .. }));
    let words = error.to_string();
    assert!(words.contains('7') && words.contains('1') && words.contains(".log"), "{words}");
}

/// CRC-32 as gzip has it, bit by bit: the test's own word on the format.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[test]
fn two_stores_cannot_have_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    match Embedded::open(dir.path(), Options::default()) {
        Err(EmbeddedError::Locked { pid, path }) => {
            assert_eq!((pid, path), (std::process::id(), dir.path().join("LOCK")));
        }
        outcome => panic!("{outcome:?}"),
    }
    runtime.block_on(store.close());
    drop(open_again(dir.path()));
    drop(open_again(dir.path()));
}

/// Opens what was just closed: a process that another test is starting holds the lock, too, until it has become its
/// program.
fn open_again(dir: &Path) -> Arc<Embedded> {
    let begun = std::time::Instant::now();
    loop {
        match Embedded::open(dir, Options::default()) {
            Err(EmbeddedError::Locked { .. }) if begun.elapsed().as_secs() < 10 => std::thread::yield_now(),
            opened => break opened.unwrap(),
        }
    }
}

/// A disk that takes its time, counts, and fails on demand.
#[derive(Debug, Default)]
struct SlowDisk {
    delay_ms: AtomicU64,
    syncs: AtomicUsize,
    failing: AtomicUsize,
    /// Syncs begun.
    entered: AtomicUsize,
    /// Syncs take as long as this is set.
    busy: AtomicBool,
}

impl Disk for SlowDisk {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        RealDisk.write(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        while self.busy.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst)));
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.failing.load(Ordering::SeqCst) > 0 {
            return Err(io::Error::from_raw_os_error(5));
        }
        RealDisk.sync(file)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_groups_writes_and_does_not_hold_up_reads() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(SlowDisk::default());
    let store = Embedded::open(dir.path(), Options { disk: disk.clone(), ..Options::default() }).unwrap();
    put(&*store, "/before", "1").await.unwrap();
    disk.delay_ms.store(300, Ordering::SeqCst);
    disk.syncs.store(0, Ordering::SeqCst);
    let writes: Vec<_> = (0..100)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { put(&*store, &format!("/{number}"), "1").await.unwrap() })
        })
        .collect();
    let started = Instant::now();
    while disk.syncs.load(Ordering::SeqCst) == 0 {
        // Not shown before it is durable.
        let (found, revision) = store.get(b"/before", 0).await.unwrap();
        assert!(found.is_some() && revision >= 1);
        tokio::task::yield_now().await;
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    for write in writes {
        write.await.unwrap();
    }
    let syncs = disk.syncs.load(Ordering::SeqCst);
    assert!(syncs <= 4, "100 concurrent writes took {syncs} syncs");
    assert_eq!(store.range(everything()).await.unwrap().count, 101);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(SlowDisk::default());
    let store = Embedded::open(dir.path(), Options { disk: disk.clone(), ..Options::default() }).unwrap();
    put(&*store, "/a", "1").await.unwrap();
    disk.failing.store(1, Ordering::SeqCst);
    assert!(matches!(put(&*store, "/a", "2").await, Err(StoreError::Io { .. })));
    disk.failing.store(0, Ordering::SeqCst);
    let syncs = disk.syncs.load(Ordering::SeqCst);
    assert!(matches!(put(&*store, "/b", "1").await, Err(StoreError::Io { .. })), "a failed disk was trusted again");
    assert_eq!(disk.syncs.load(Ordering::SeqCst), syncs);
    assert_eq!(store.get(b"/a", 0).await.unwrap().0.unwrap().value, "1");
    store.close().await;
    let store = open_again(dir.path());
    put(&*store, "/b", "1").await.unwrap();
}

/// A file system of a size, mounted for one test.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(dir: &Path, size: &str) -> Tmpfs {
        let options = format!("size={size}");
        nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str()))
            .unwrap();
        Tmpfs(dir.to_path_buf())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let _mount = Tmpfs::mount(dir.path(), "4m");
    let ballast = dir.path().join("ballast");
    fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let data = dir.path().join("data");
    let store = Embedded::open(&data, Options::default()).unwrap();
    let mut written = 0;
    let refused = loop {
        match put(&*store, &format!("/{written:05}"), vec![b'x'; 10_000]).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::NoSpace(_)), "{refused}");
    assert!(written > 200, "only {written} writes");
    assert!(matches!(put(&*store, "/one/more", vec![b'x'; 10_000]).await, Err(StoreError::NoSpace(_))));
    assert_eq!(store.range(everything()).await.unwrap().count, written);
    fs::remove_file(&ballast).unwrap();
    let revision = put(&*store, "/one/more", vec![b'x'; 10_000]).await.unwrap();
    assert_eq!(revision, written + 1, "the refused writes took revisions");
    store.close().await;
    let store = open_again(&data);
    let status = store.status().await.unwrap();
    assert_eq!((status.keys, status.revision, status.recovery), (written + 1, written + 1, None));
    store.close().await;
}
