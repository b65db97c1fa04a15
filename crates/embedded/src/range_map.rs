//! Which watchers want a key: key space cut into pieces, each with the watchers that cover it.
//!
//! Finding the watchers of a key costs one look-up in a tree, however many watch other keys.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

/// Watchers by the ranges that they cover. Each boundary starts a piece that goes to the next.
#[derive(Debug, Default)]
pub(crate) struct RangeMap {
    pieces: BTreeMap<Bytes, Vec<u64>>,
}

impl RangeMap {
    /// The watchers whose range holds the key.
    pub(crate) fn covering(&self, key: &[u8]) -> &[u64] {
        self.pieces.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back().map_or(&[], |(_, ids)| ids)
    }

    /// Adds a watcher of `[start, end)`; without an end, of everything from `start`.
    pub(crate) fn insert(&mut self, id: u64, start: &Bytes, end: Option<&Bytes>) {
        if is_empty(start, end) {
            return;
        }
        self.cut(start);
        if let Some(end) = end {
            self.cut(end);
        }
        for (_, ids) in self.pieces.range_mut((Bound::Included(start.clone()), upper(end))) {
            ids.push(id);
        }
    }

    /// Takes a watcher out again; its range must be that of its insertion.
    pub(crate) fn remove(&mut self, id: u64, start: &Bytes, end: Option<&Bytes>) {
        if is_empty(start, end) {
            return;
        }
        for (_, ids) in self.pieces.range_mut((Bound::Included(start.clone()), upper(end))) {
            ids.retain(|other| *other != id);
        }
        self.join(start);
        if let Some(end) = end {
            self.join(end);
        }
    }

    /// Makes `at` a boundary.
    fn cut(&mut self, at: &Bytes) {
        if !self.pieces.contains_key(at) {
            let before = self.covering(at).to_vec();
            self.pieces.insert(at.clone(), before);
        }
    }

    /// Removes a boundary that does not part anything any more.
    fn join(&mut self, at: &Bytes) {
        let Some(ids) = self.pieces.get(at) else { return };
        let before = self.pieces.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&at[..]))).next_back();
        if before.map_or(&[][..], |(_, ids)| ids) == ids.as_slice() {
            self.pieces.remove(at);
        }
    }
}

fn is_empty(start: &Bytes, end: Option<&Bytes>) -> bool {
    end.is_some_and(|end| end <= start)
}

fn upper(end: Option<&Bytes>) -> Bound<Bytes> {
    end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(map: &RangeMap, key: &str, wanted: &[u64]) {
        let mut ids = map.covering(key.as_bytes()).to_vec();
        ids.sort_unstable();
        assert_eq!(ids, wanted, "watchers of {key}");
    }

    #[test]
    fn nested_overlapping_and_open_ranges_are_found_and_forgotten() {
        let key = |name: &'static str| Bytes::from_static(name.as_bytes());
        let mut map = RangeMap::default();
        map.insert(1, &key("a"), None);
        map.insert(2, &key("b"), Some(&key("d")));
        map.insert(3, &key("c"), Some(&key("e")));
        map.insert(4, &key("b"), Some(&key("c")));
        check(&map, "A", &[]);
        check(&map, "a", &[1]);
        check(&map, "b", &[1, 2, 4]);
        check(&map, "c", &[1, 2, 3]);
        check(&map, "d", &[1, 3]);
        check(&map, "e", &[1]);
        map.remove(2, &key("b"), Some(&key("d")));
        check(&map, "b", &[1, 4]);
        check(&map, "c", &[1, 3]);
        map.remove(4, &key("b"), Some(&key("c")));
        map.remove(3, &key("c"), Some(&key("e")));
        map.remove(1, &key("a"), None);
        assert!(map.pieces.is_empty(), "nothing stays behind: {map:?}");
    }
}
