//! Range reads: in chunks at a pinned revision, so that a long one does not hold up the writer.

use std::ops::Bound;

use ironkeel_store::{KeyValue, Range, RangeAnswer, Revision, StoreError};

use crate::Shared;

/// Keys looked at under one hold of the index's lock.
pub(crate) const SCAN_CHUNK: usize = 512;

/// Keeps a revision readable.
struct Pin<'a> {
    shared: &'a Shared,
    revision: Revision,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.shared.index.write().unpin(self.revision);
    }
}

/// Reads a range from one revision.
pub(crate) async fn range(shared: &Shared, range: Range) -> Result<RangeAnswer, StoreError> {
    if range.end.is_empty() {
        return one_key(shared, &range);
    }
    let mut answer = RangeAnswer::default();
    let pin = {
        let mut index = shared.index.write();
        let revision = index.readable(range.revision)?;
        answer.revision = index.revision;
        index.pin(revision);
        Pin { shared, revision }
    };
    let limit = if range.count_only {
        0
    } else if range.limit == 0 {
        usize::MAX
    } else {
        range.limit
    };
    let mut from = range.start.clone();
    let mut included = true;
    loop {
        let next = {
            let bound = if included { Bound::Included(&from[..]) } else { Bound::Excluded(&from[..]) };
            shared.index.read().scan(bound, &range.end, pin.revision, SCAN_CHUNK, |key, version| {
                answer.count += 1;
                if answer.kvs.len() < limit {
                    let mut kv: KeyValue = version.key_value(key);
                    if range.keys_only {
                        kv.value.clear();
                    }
                    answer.kvs.push(kv);
                }
            })
        };
        match next {
            Some(key) => (from, included) = (key, false),
            None => return Ok(answer),
        }
        tokio::task::yield_now().await;
    }
}

fn one_key(shared: &Shared, range: &Range) -> Result<RangeAnswer, StoreError> {
    let index = shared.index.read();
    let revision = index.readable(range.revision)?;
    let found = index.as_of(&range.start, revision);
    let count = u64::from(found.is_some());
    let mut kvs = Vec::new();
    if let Some(mut kv) = found.filter(|_| !range.count_only) {
        if range.keys_only {
            kv.value.clear();
        }
        kvs.push(kv);
    }
    Ok(RangeAnswer { kvs, count, revision: index.revision })
}
