//! Names that are known only at run time, as the `'static` text that rows hold.
//!
//! A custom resource's row has the same shape as a built-in one. Its names (group, plural, kind, …)
//! are kept here once for the life of the process, however often the resource is changed, removed or
//! defined anew: what is kept grows with the number of *different* names, not with the changes.

use std::collections::HashSet;
use std::sync::LazyLock;

use parking_lot::Mutex;

static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
static LISTS: LazyLock<Mutex<HashSet<&'static [&'static str]>>> = LazyLock::new(Mutex::default);

/// The kept copy of a name.
pub fn intern(name: &str) -> &'static str {
    let mut names = NAMES.lock();
    match names.get(name) {
        Some(kept) => kept,
        None => {
            let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
            names.insert(kept);
            kept
        }
    }
}

/// The kept copy of a list of names.
pub fn intern_list<S: AsRef<str>>(list: &[S]) -> &'static [&'static str] {
    let list: Vec<&'static str> = list.iter().map(|n| intern(n.as_ref())).collect();
    let mut lists = LISTS.lock();
    match lists.get(list.as_slice()) {
        Some(kept) => kept,
        None => {
            let kept: &'static [&'static str] = Box::leak(list.into_boxed_slice());
            lists.insert(kept);
            kept
        }
    }
}
