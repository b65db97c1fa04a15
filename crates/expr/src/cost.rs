//! What calls cost while an expression runs: cel-go's cost model and Kubernetes' additions.

use crate::functions::Cost;
use crate::value::{OpaqueVal, Val};

/// An authorization check: two fit into an expression.
pub(crate) const CHECK: u64 = 350_000;
const PER_CHAR: f64 = 0.1;
const PER_PATTERN_CHAR: f64 = 0.25;
/// A list and a message for each requirement of a selector, of which each two characters may be one.
const PER_SELECTOR_CHAR: f64 = 0.5;
const PER_REQUIREMENT: f64 = 50.0;

/// Reads a text of that length once.
pub(crate) fn read(size: u64, factor: f64) -> u64 {
    // Saturates at the top.
    (size as f64 * factor).ceil() as u64
}

/// Matches a text against a pattern, both by their lengths.
pub(crate) fn matching(text: u64, pattern: u64) -> u64 {
    read(text.saturating_add(1), PER_CHAR).saturating_mul(read(pattern, PER_PATTERN_CHAR))
}

/// Parses a selector.
pub(crate) fn selector(size: u64) -> u64 {
    let requirements = read(size, PER_SELECTOR_CHAR);
    read(size, PER_CHAR).saturating_add(read(requirements, PER_REQUIREMENT)).saturating_add(10)
}

/// Makes a list after so much work.
pub(crate) fn list_call(work: f64) -> u64 {
    (work as u64).saturating_add(11)
}

/// What the arguments alone tell.
pub(crate) fn before(cost: Cost, overload: Option<&str>, args: &[Val<'_>]) -> u64 {
    let size = |at: usize| args.get(at).map_or(1, Val::size);
    match cost {
        Cost::One => 1,
        Cost::Standard => standard(overload, args),
        Cost::Check => CHECK,
        Cost::Selector => selector(size(1)),
        Cost::Walk => args.first().map_or(1, traversal),
        Cost::Parse { .. } => read(size(0), PER_CHAR),
        Cost::Replace | Cost::Split | Cost::Canonical => read(size(0), 2.0 * PER_CHAR),
        Cost::Find => matching(size(0), size(1)),
        Cost::Ip if is_cidr(args.first()) => 1,
        Cost::Ip => read(size(0), PER_CHAR),
        Cost::ContainsIp => read(size(0) * 2, PER_CHAR) + if_text(args),
        Cost::ContainsCidr => read(size(0) * 2, PER_CHAR) + read(size(0), PER_CHAR) + 1 + if_text(args),
        Cost::Validate => match args.first() {
            Some(Val::Opaque(o)) => match &**o {
                OpaqueVal::Format(format) => matching(size(1), format.regex_size),
                _ => 1,
            },
            _ => 1,
        },
        Cost::Flatten => {
            let levels = match args.get(1) {
                Some(Val::Int(levels)) => (*levels).max(0) as f64,
                _ => 1.0,
            };
            list_call(size(0) as f64 * levels)
        }
        Cost::SelfCompare(at) => {
            let texts = match args.get(at) {
                Some(Val::List(list)) => matches!(list.get(0), Some(Ok(Val::String(_) | Val::Bytes(_)))),
                _ => false,
            };
            let n = size(at) as f64;
            list_call(n * n * if texts { 2.1 } else { 2.0 })
        }
        Cost::Sets(times) => size(0).saturating_mul(size(1)).saturating_mul(times).saturating_add(1),
        // Known when the result is.
        Cost::Join | Cost::ListOut => 0,
    }
}

/// What only the result tells.
pub(crate) fn after(cost: Cost, result: &Val<'_>) -> u64 {
    match cost {
        Cost::Join => read(result.size(), 2.0 * PER_CHAR),
        Cost::ListOut => list_call(result.size() as f64),
        _ => 0,
    }
}

fn is_cidr(val: Option<&Val<'_>>) -> bool {
    matches!(val, Some(Val::Opaque(_)))
}

fn if_text(args: &[Val<'_>]) -> u64 {
    match args.get(1) {
        Some(text @ Val::String(_)) => read(text.size(), PER_CHAR),
        _ => 0,
    }
}

/// cel-go's own functions: by overload where one is known, else 1.
fn standard(overload: Option<&str>, args: &[Val<'_>]) -> u64 {
    let size = |at: usize| args.get(at).map_or(1, Val::size);
    match overload.unwrap_or_default() {
        "equals" | "not_equals" => match args.first() {
            Some(Val::Opaque(_)) => 1,
            _ => read(size(0).min(size(1)), PER_CHAR),
        },
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote"
        | "string_format" => read(size(0), PER_CHAR),
        "in_list" => size(1),
        "less_string"
        | "less_equals_string"
        | "greater_string"
        | "greater_equals_string"
        | "less_bytes"
        | "less_equals_bytes"
        | "greater_bytes"
        | "greater_equals_bytes" => read(size(0).min(size(1)), PER_CHAR),
        "add_string" | "add_bytes" => read(size(0).saturating_add(size(1)), PER_CHAR),
        "matches_string" => matching(size(0), size(1)),
        "contains_string" => read(size(0), PER_CHAR).saturating_mul(read(size(1), PER_CHAR)),
        _ => 1,
    }
}

/// Looks at a whole tree of values.
fn traversal(val: &Val<'_>) -> u64 {
    match val {
        Val::String(s) => (s.len() as f64 * PER_CHAR) as u64,
        Val::Bytes(b) => (b.len() as f64 * PER_CHAR) as u64,
        Val::List(list) => list.iter().map(|item| item.map_or(1, |item| traversal(&item))).sum(),
        Val::Map(map) => map
            .entries()
            .map_or(1, |entries| entries.iter().map(|(k, v)| traversal(k).saturating_add(traversal(v))).sum()),
        _ => 1,
    }
}
