//! The store's own files after anything happened to them: opening tells what is wrong or gives a store that can be
//! read and written, and opening what it made gives the same again.
//!
//! An input is a log behind a whole header: records of kind, revision's step, key and value, each with its checksum
//! made right, and then bytes as they are.
#![no_main]

use ironkeel_embedded::{Embedded, Options};
use ironkeel_store::{Condition, Range, Store};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fn header(revision: u64) -> Vec<u8> {
    let mut bytes = b"IRONKEEL\x01\0\0\0\x01\0\0\0".to_vec();
    for number in [1, revision, 0] {
        bytes.extend_from_slice(&u64::to_le_bytes(number));
    }
    bytes.extend_from_slice(&[0; 4]);
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Takes a record from the input and appends it with the right length and checksum.
fn record<'a>(input: &'a [u8], revision: &mut u64, out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(6)?;
    let [kind, step, key, value, number, raw] = *head else { return None };
    if raw == 0xff {
        return None;
    }
    let (key, value) = (usize::from(key % 16), usize::from(value));
    let (content, rest) = rest.split_at_checked(key + value)?;
    *revision = revision.wrapping_add(u64::from(step));
    let mut body = vec![kind, 0, 0, 0];
    body.extend_from_slice(&(if raw == 0xfe { u32::MAX } else { key as u32 }).to_le_bytes());
    // Durable up to here, the revision, the number, the lease.
    body.extend_from_slice(&(if raw & 1 == 0 { 0 } else { out.len() as u64 }).to_le_bytes());
    body.extend_from_slice(&revision.to_le_bytes());
    body.extend_from_slice(&(if number == 0xff { u64::MAX } else { u64::from(number) }).to_le_bytes());
    body.extend_from_slice(&u64::from(raw >> 4).to_le_bytes());
    body.extend_from_slice(content);
    let mut record = (body.len() as u32).to_le_bytes().to_vec();
    let mut sum = crc32fast::Hasher::new();
    sum.update(&record);
    sum.update(&body);
    record.extend_from_slice(&sum.finalize().to_le_bytes());
    record.extend_from_slice(&body);
    out.extend_from_slice(&record);
    Some(rest)
}

/// Everything that the store holds.
fn contents(runtime: &tokio::runtime::Runtime, store: &Embedded) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    let all = Range { start: b"\0".as_slice().into(), end: b"\0".as_slice().into(), ..Range::default() };
    let answer = runtime.block_on(store.range(all)).expect("the store is read");
    answer.kvs.into_iter().map(|kv| (kv.key.to_vec(), kv.value.to_vec(), kv.mod_revision)).collect()
}

fn open(dir: &Path) -> Option<std::sync::Arc<Embedded>> {
    Embedded::open(dir, Options::default()).ok()
}

fuzz_target!(|data: &[u8]| {
    let dir = ironkeel_fuzz::scratch("log");
    let mut rest = data;
    let mut bytes = header(0);
    let mut revision = 0;
    while let Some(next) = record(rest, &mut revision, &mut bytes) {
        rest = next;
    }
    bytes.extend_from_slice(rest);
    std::fs::write(dir.join("0000000000000001.log"), &bytes).expect("a log");
    if let Some(store) = open(&dir) {
        let runtime = ironkeel_fuzz::runtime();
        let before = contents(&runtime, &store);
        runtime.block_on(store.close());
        drop(store);
        let store = open(&dir).expect("what was opened is opened again");
        assert_eq!(contents(&runtime, &store), before, "opening twice changes nothing");
        if runtime.block_on(store.put("\u{ff}new".into(), "v".into(), Condition::Always, 0)).is_ok() {
            runtime.block_on(store.close());
            drop(store);
            let store = open(&dir).expect("what was written is opened again");
            assert_eq!(
                contents(&runtime, &store).len(),
                before.iter().filter(|b| b.0 != "\u{ff}new".as_bytes()).count() + 1
            );
        }
    }
    let _ = std::fs::remove_dir_all(&dir);
});
