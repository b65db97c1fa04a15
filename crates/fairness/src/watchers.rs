//! How many watchers a write will wake. Watches are alike where resource, namespace and name agree;
//! watches of pods that name one node count for nothing, since an event concerns one node.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::matching::Digest;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key(String, String, String, String);

/// The watches in place.
#[derive(Debug, Default)]
pub struct WatchCounts {
    counts: Mutex<HashMap<Key, usize>>,
}

/// A counted watch, until it is dropped.
#[derive(Debug)]
pub struct Watched {
    counts: Arc<WatchCounts>,
    key: Option<Key>,
}

impl WatchCounts {
    /// Counts a watch.
    pub fn register(self: &Arc<Self>, request: &Digest<'_>, field_selector: &str) -> Watched {
        let one_node = request.resource == "pods"
            && request.group.is_empty()
            && field_selector
                .split(',')
                .filter_map(|s| s.strip_prefix("spec.nodeName="))
                .any(|node| !node.trim_start_matches('=').is_empty());
        let key = (!one_node)
            .then(|| Key(request.group.into(), request.resource.into(), request.namespace.into(), request.name.into()));
        if let Some(key) = &key {
            *self.counts.lock().entry(key.clone()).or_default() += 1;
        }
        Watched { counts: self.clone(), key }
    }

    /// Watches that a write of this request may wake.
    pub fn interested(&self, request: &Digest<'_>) -> usize {
        let counts = self.counts.lock();
        if counts.is_empty() {
            return 0;
        }
        let of = |namespace: &str, name: &str| {
            let key = Key(request.group.into(), request.resource.into(), namespace.into(), name.into());
            counts.get(&key).copied().unwrap_or(0)
        };
        let mut all = of("", "");
        if !request.namespace.is_empty() {
            all += of(request.namespace, "");
        }
        if !request.name.is_empty() {
            all += of(request.namespace, request.name);
        }
        all
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(key) = &self.key else { return };
        let mut counts = self.counts.counts.lock();
        if let Some(n) = counts.get_mut(key) {
            *n -= 1;
            if *n == 0 {
                counts.remove(key);
            }
        }
    }
}
