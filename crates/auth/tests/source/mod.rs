//! Stored objects in memory, for tests.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ironkeel_object::{ObjectMeta, ObjectSource, Value};
use ironkeel_schema::{Resource, resources};
use parking_lot::Mutex;

type Key = (&'static str, String, String);

/// Objects by resource, namespace and name.
#[derive(Default)]
pub struct Memory {
    objects: Mutex<BTreeMap<Key, Arc<Value>>>,
    version: AtomicU64,
}

impl Memory {
    /// Stores an object under the resource of its kind.
    pub fn put(&self, object: Value) {
        let gvk = object.gvk();
        let row = resources().iter().find(|r| r.kind == gvk.kind && r.group == gvk.group).expect("a served kind");
        let key = (row.plural, object.namespace().to_owned(), object.name().to_owned());
        self.objects.lock().insert(key, Arc::new(object));
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Removes an object.
    pub fn remove(&self, plural: &'static str, namespace: &str, name: &str) {
        self.objects.lock().remove(&(plural, namespace.to_owned(), name.to_owned()));
        self.version.fetch_add(1, Ordering::SeqCst);
    }
}

impl ObjectSource for Memory {
    fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = (resource.plural, namespace.to_owned(), name.to_owned());
        self.objects.lock().get(&key).cloned()
    }

    fn list(&self, resource: &'static Resource, namespace: &str) -> Vec<Arc<Value>> {
        let objects = self.objects.lock();
        let mine =
            objects.iter().filter(|((r, n, _), _)| *r == resource.plural && (namespace.is_empty() || n == namespace));
        mine.map(|(_, v)| v.clone()).collect()
    }

    fn version(&self, _: &'static Resource) -> u64 {
        self.version.load(Ordering::SeqCst)
    }
}
