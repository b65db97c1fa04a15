//! An object's members: a vector sorted by key.
//!
//! Sorted order makes encodings canonical, comparison cheap and duplicate keys visible to whoever
//! decodes. Names that the schema knows are borrowed, so a decoded Pod allocates only for data.

use std::borrow::Cow;
use std::fmt;

use crate::Value;

/// A member's name: borrowed from the schema where it is known, owned otherwise.
pub type Key = Cow<'static, str>;

/// Members of a JSON object, sorted by key, each key once.
#[derive(Clone, Default, PartialEq)]
pub struct Map(Vec<(Key, Value)>);

impl Map {
    /// An empty object; does not allocate.
    pub const fn new() -> Self {
        Map(Vec::new())
    }

    /// An empty object with room for `n` members.
    pub fn with_capacity(n: usize) -> Self {
        Map(Vec::with_capacity(n))
    }

    /// Takes members in any order. Of equal keys the last one wins, as in Go's decoder; the second
    /// value holds every key that was there more than once.
    pub fn from_unsorted(mut members: Vec<(Key, Value)>) -> (Self, Vec<Key>) {
        let mut duplicates = Vec::new();
        if !members.is_sorted_by(|a, b| a.0 < b.0) {
            members.sort_by(|a, b| a.0.cmp(&b.0));
            let mut out: Vec<(Key, Value)> = Vec::with_capacity(members.len());
            for member in members {
                match out.last_mut() {
                    Some(last) if last.0 == member.0 => {
                        if duplicates.last() != Some(&member.0) {
                            duplicates.push(member.0.clone());
                        }
                        *last = member;
                    }
                    _ => out.push(member),
                }
            }
            members = out;
        }
        (Map(members), duplicates)
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(k, _)| k.as_ref().cmp(key))
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.find(key).ok().map(|i| &self.0[i].1)
    }

    /// The value under `key`, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.find(key).ok().map(|i| &mut self.0[i].1)
    }

    /// Whether there is a member `key`, be it null.
    pub fn contains_key(&self, key: &str) -> bool {
        self.find(key).is_ok()
    }

    /// Sets a member; returns the value that was there.
    pub fn insert(&mut self, key: impl Into<Key>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.find(&key) {
            Ok(i) => Some(std::mem::replace(&mut self.0[i].1, value)),
            Err(i) => {
                self.0.insert(i, (key, value));
                None
            }
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.find(key).ok().map(|i| self.0.remove(i).1)
    }

    /// The value under `key`, made by `default` where there is none.
    pub fn entry(&mut self, key: impl Into<Key>, default: impl FnOnce() -> Value) -> &mut Value {
        let key = key.into();
        let i = match self.find(&key) {
            Ok(i) => i,
            Err(i) => {
                self.0.insert(i, (key, default()));
                i
            }
        };
        &mut self.0[i].1
    }

    /// The object under `key`; made, or put in the place of null or another type, where there is none.
    pub fn object(&mut self, key: impl Into<Key>) -> &mut Map {
        let slot = self.entry(key, || Value::Object(Map::new()));
        if !matches!(slot, Value::Object(_)) {
            *slot = Value::Object(Map::new());
        }
        match slot {
            Value::Object(m) => m,
            _ => unreachable!("just made an object"),
        }
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Members in key order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Key, &Value)> + ExactSizeIterator {
        self.0.iter().map(|(k, v)| (k, v))
    }

    /// Members in key order, values to change.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&Key, &mut Value)> + ExactSizeIterator {
        self.0.iter_mut().map(|(k, v)| (&*k, v))
    }

    /// Keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &Key> + ExactSizeIterator {
        self.0.iter().map(|(k, _)| k)
    }

    /// Values in key order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Value> + ExactSizeIterator {
        self.0.iter().map(|(_, v)| v)
    }

    /// Keeps the members for which `keep` answers true.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.0.retain_mut(|(k, v)| keep(k.as_ref(), v));
    }

    /// A member that is a string.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl Extend<(Key, Value)> for Map {
    /// Sets many members at once. One by one, each new member would move all that stand behind it.
    fn extend<T: IntoIterator<Item = (Key, Value)>>(&mut self, members: T) {
        /// So few that moving the rest costs less than putting all in order.
        const FEW: usize = 8;
        let members: Vec<(Key, Value)> = members.into_iter().collect();
        if members.len() <= FEW {
            for (key, value) in members {
                self.insert(key, value);
            }
        } else {
            let mut all = std::mem::take(&mut self.0);
            all.extend(members);
            *self = Map::from_unsorted(all).0;
        }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl IntoIterator for Map {
    type Item = (Key, Value);
    type IntoIter = std::vec::IntoIter<(Key, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Into<Key>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(iter: T) -> Self {
        Map::from_unsorted(iter.into_iter().map(|(k, v)| (k.into(), v.into())).collect()).0
    }
}
