//! Which elements of a list stand there twice. One walk with a set: a list may be as long as a request's body, and a
//! search through all earlier elements for each takes minutes then.

use std::collections::HashSet;
use std::hash::Hash;

use ironkeel_object::Value;

/// For each element whether an earlier one has the same key.
pub(crate) fn repeated_by<T, K: Eq + Hash>(list: impl IntoIterator<Item = T>, key: impl Fn(T) -> K) -> Vec<bool> {
    let mut seen = HashSet::new();
    list.into_iter().map(|element| !seen.insert(key(element))).collect()
}

/// For each element whether an earlier one has the same member.
pub(crate) fn repeated<'a>(list: impl IntoIterator<Item = &'a Value>, member: &str) -> Vec<bool> {
    repeated_by(list, |element| identity(&element[member]))
}

/// For each element whether an earlier one has the same text as its member; an absent one is empty.
pub(crate) fn repeated_text<'a>(list: impl IntoIterator<Item = &'a Value>, member: &str) -> Vec<bool> {
    repeated_by(list, |element| element.str_at(&[member]).unwrap_or_default())
}

/// For each element whether an earlier one equals it.
pub(crate) fn repeated_whole<'a>(list: impl IntoIterator<Item = &'a Value>) -> Vec<bool> {
    repeated_by(list, identity)
}

/// A key that equal values share, and others do not.
pub(crate) fn identity(value: &Value) -> String {
    format!("{value:?}")
}

/// What stands in a list, to be asked many times.
pub(crate) fn members(list: &[Value]) -> HashSet<String> {
    list.iter().map(identity).collect()
}

/// The texts of a member in a list, to be asked many times; an absent one is empty.
pub(crate) fn texts<'a>(list: impl IntoIterator<Item = &'a Value>, member: &str) -> HashSet<&'a str> {
    list.into_iter().map(|v| v.str_at(&[member]).unwrap_or_default()).collect()
}
