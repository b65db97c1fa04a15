//! Checking values against a schema, in the words of upstream's OpenAPI validator.
//!
//! On an update, what has not changed is not complained of: a stored object whose schema has become
//! stricter stays editable elsewhere (ratcheting). What has not changed is `correlation`'s to say.

use std::fmt::Write as _;

use ironkeel_object::{Number, Value};

use super::correlation::Correlated;
use super::formats;
use super::schema::{Additional, ListKind, Schema};
use crate::error::{Errors, shown};
use crate::repeats::repeated_whole;
use crate::{FieldError, FieldErrorKind, Path};

/// Findings below one node, and how many checks were passed: of several alternatives that fail, the
/// one with most is told.
#[derive(Default)]
struct Found {
    errors: Vec<FieldError>,
    matched: usize,
}

impl Found {
    fn merge(&mut self, other: Found) {
        self.errors.extend(other.errors);
        self.matched += other.matched;
    }

    fn push(&mut self, path: &str, kind: FieldErrorKind, message: String) {
        self.errors.push(FieldError { path: Path::new(path.trim_start_matches('.')), kind, message });
    }

    fn invalid(&mut self, path: &str, value: &str, detail: &str) {
        let name = in_body(path);
        self.push(path, FieldErrorKind::Invalid, format!("Invalid value: {value}: {name} {detail}"));
    }

    /// An error without a place of its own.
    fn whole(&mut self, detail: String) {
        self.push("<nil>", FieldErrorKind::Invalid, format!("Invalid value: \"\": {detail}"));
    }

    fn wrong_type(&mut self, path: &str, wanted: &str, found: &str) {
        let quoted = shown(&found.into());
        let message = format!("Invalid value: {quoted}: {} must be of type {wanted}: {quoted}", in_body(path));
        self.push(path, FieldErrorKind::TypeInvalid, message);
    }
}

fn in_body(path: &str) -> String {
    format!("{path} in body")
}

/// Checks an object, or a part of one. `old` is what it replaces.
pub(crate) fn validate(object: &Value, old: Option<&Correlated<'_>>, schema: &Schema) -> Vec<FieldError> {
    check(object, old, schema, "").errors
}

/// JSON's name of a value's type.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(Number::Int(_)) => "integer",
        Value::Number(Number::Float(_)) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check(value: &Value, old: Option<&Correlated<'_>>, s: &Schema, path: &str) -> Found {
    let mut out = Found::default();
    // The same value as before is never wrong.
    if old.is_some_and(Correlated::unchanged) {
        out.matched += 1;
        return out;
    }
    types(value, s, path, &mut out);
    if !value.is_null() {
        alternatives(value, old, s, path, &mut out);
        match value {
            Value::String(text) => string(text, s, path, &mut out),
            Value::Number(n) => number(*n, s, path, &mut out),
            Value::Array(items) => array(items, old, s, path, &mut out),
            _ => {}
        }
    }
    if !s.allowed.is_empty() && !s.allowed.iter().any(|a| a == value || same_number(a, value)) {
        let list: Vec<String> =
            s.allowed.iter().map(|a| shown(&a.as_str().map_or_else(|| shown(a), str::to_owned).into())).collect();
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), list.join(", "));
        out.push(path, FieldErrorKind::NotSupported, message);
    }
    if let Value::Object(_) = value {
        object(value, old, s, path, &mut out);
    }
    out.matched += 1;
    out
}

fn same_number(a: &Value, b: &Value) -> bool {
    matches!((a.as_f64(), b.as_f64()), (Some(x), Some(y)) if x == y)
}

fn types(value: &Value, s: &Schema, path: &str, out: &mut Found) {
    let wanted: &[&str] = if s.int_or_string {
        &["integer", "string"]
    } else if s.kind.is_empty() {
        &[]
    } else {
        &[s.kind.as_str()]
    };
    if wanted.is_empty() && s.format.is_empty() {
        return;
    }
    let found = type_of(value);
    if value.is_null() {
        if !wanted.is_empty() && !s.nullable {
            out.wrong_type(path, &wanted.join(","), "null");
        }
        return;
    }
    let integral =
        matches!(value, Value::Number(Number::Float(f)) if f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0);
    let fits = wanted.contains(&found)
        || (found == "integer" && wanted.contains(&"number"))
        || (integral && wanted.contains(&"integer"));
    let numeric = wanted.contains(&"integer") || wanted.contains(&"number");
    // Text with a format is left to the format.
    if !numeric && !s.format.is_empty() && matches!(value, Value::String(_) | Value::Array(_)) {
        return;
    }
    if !wanted.is_empty() && !fits {
        out.wrong_type(path, &wanted.join(","), found);
    }
}

fn alternatives(value: &Value, old: Option<&Correlated<'_>>, s: &Schema, path: &str, out: &mut Found) {
    let quoted = || shown(&path.into());
    if !s.any_of.is_empty() {
        let mut best: Option<Found> = None;
        let mut fits = false;
        for a in &s.any_of {
            let found = check(value, old, a, path);
            if found.errors.is_empty() {
                fits = true;
                break;
            }
            if best.as_ref().is_none_or(|b| found.matched > b.matched) {
                best = Some(found);
            }
        }
        if !fits {
            out.whole(format!("{} must validate at least one schema (anyOf)", quoted()));
            best.into_iter().for_each(|b| out.merge(b));
        }
    }
    if !s.one_of.is_empty() {
        let mut best: Option<Found> = None;
        let mut fits = 0;
        for a in &s.one_of {
            let found = check(value, old, a, path);
            if found.errors.is_empty() {
                fits += 1;
                best = None;
            } else if fits == 0 && best.as_ref().is_none_or(|b| found.matched > b.matched) {
                best = Some(found);
            }
        }
        if fits != 1 {
            let more =
                if fits == 0 { "Found none valid".to_owned() } else { format!("Found {fits} valid alternatives") };
            out.whole(format!("{} must validate one and only one schema (oneOf). {more}", quoted()));
            best.into_iter().for_each(|b| out.merge(b));
        }
    }
    if !s.all_of.is_empty() {
        let mut fits = 0;
        for a in &s.all_of {
            let found = check(value, old, a, path);
            fits += usize::from(found.errors.is_empty());
            out.merge(found);
        }
        if fits != s.all_of.len() {
            let more = if fits == 0 { ". None validated" } else { "" };
            out.whole(format!("{} must validate all the schemas (allOf){more}", quoted()));
        }
    }
    if s.not.as_ref().is_some_and(|n| check(value, old, n, path).errors.is_empty()) {
        out.whole(format!("{} must not validate the schema (not)", quoted()));
    }
}

fn string(text: &str, s: &Schema, path: &str, out: &mut Found) {
    let value = || shown(&text.into());
    let numeric = matches!(s.kind.as_str(), "integer" | "number");
    if !s.format.is_empty() && !numeric && formats::check(&s.format, text) == Some(false) {
        let quoted = value();
        let message = format!("Invalid value: {quoted}: {} must be of type {}: {quoted}", in_body(path), s.format);
        out.push(path, FieldErrorKind::TypeInvalid, message);
    }
    let length = text.chars().count() as i64;
    if let Some(max) = s.max_length.filter(|m| length > *m) {
        let unit = if max == 1 { "byte" } else { "bytes" };
        out.push(path, FieldErrorKind::TooLong, format!("Too long: may not be more than {max} {unit}"));
    }
    if let Some(min) = s.min_length.filter(|m| length < *m) {
        out.invalid(path, &value(), &format!("should be at least {min} chars long"));
    }
    if let Some((pattern, Some(regex))) = &s.pattern
        && !regex.is_match(text)
    {
        out.invalid(path, &value(), &format!("should match '{pattern}'"));
    }
}

/// A number as Go's `%v` prints it.
fn plain(n: f64) -> String {
    if n.fract() == 0.0 && n.abs() < 1e21 { format!("{n:.0}") } else { format!("{n}") }
}

fn number(n: Number, s: &Schema, path: &str, out: &mut Found) {
    let v = match n {
        Number::Int(i) => i as f64,
        Number::Float(f) => f,
    };
    let value = shown(&Value::Number(n));
    if let Some(m) = s.multiple_of.filter(|m| *m > 0.0)
        && (v / m).fract() != 0.0
    {
        out.invalid(path, &value, &format!("should be a multiple of {}", plain(m)));
    }
    match s.maximum {
        Some((max, true)) if v >= max => out.invalid(path, &value, &format!("should be less than {}", plain(max))),
        Some((max, false)) if v > max => {
            out.invalid(path, &value, &format!("should be less than or equal to {}", plain(max)));
        }
        _ => {}
    }
    match s.minimum {
        Some((min, true)) if v <= min => out.invalid(path, &value, &format!("should be greater than {}", plain(min))),
        Some((min, false)) if v < min => {
            out.invalid(path, &value, &format!("should be greater than or equal to {}", plain(min)));
        }
        _ => {}
    }
    let fits = |low: f64, high: f64| v >= low && v <= high;
    let bounded = match s.format.as_str() {
        "int32" => fits(f64::from(i32::MIN), f64::from(i32::MAX)),
        "uint32" => fits(0.0, f64::from(u32::MAX)),
        _ => true,
    };
    if !bounded {
        let mut detail = String::new();
        // Writing to a String cannot fail.
        let _ = write!(detail, "must be of type {}: {}", s.format, shown(&value.as_str().into()));
        out.invalid(path, &value, &detail);
    }
}

fn array(items: &[Value], old: Option<&Correlated<'_>>, s: &Schema, path: &str, out: &mut Found) {
    if let Some(each) = &s.items {
        let olds = old.map(Correlated::elements).unwrap_or_default();
        for (i, item) in items.iter().enumerate() {
            let older = olds.get(i).and_then(Option::as_ref);
            out.merge(check(item, older, each, &format!("{path}[{i}]")));
        }
    }
    let size = items.len() as i64;
    if let Some(min) = s.min_items.filter(|m| size < *m) {
        out.invalid(path, &size.to_string(), &format!("should have at least {min} items"));
    }
    if let Some(max) = s.max_items.filter(|m| size > *m) {
        out.push(path, FieldErrorKind::TooMany, too_many(size, max));
    }
    if s.unique_items && repeated_whole(items).contains(&true) {
        out.invalid(path, "\"\"", "shouldn't contain duplicates");
    }
}

fn too_many(actual: i64, max: i64) -> String {
    let unit = if max == 1 { "item" } else { "items" };
    format!("Too many: {actual}: must have at most {max} {unit}")
}

fn object(value: &Value, old: Option<&Correlated<'_>>, s: &Schema, path: &str, out: &mut Found) {
    let Some(members) = value.as_object() else { return };
    let size = members.len() as i64;
    if let Some(min) = s.min_properties.filter(|m| size < *m) {
        out.invalid(path, &size.to_string(), &format!("should have at least {min} properties"));
    }
    if let Some(max) = s.max_properties.filter(|m| size > *m) {
        out.push(path, FieldErrorKind::TooMany, too_many(size, max));
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, member) in members.iter() {
        // Both are of one kind and version by now, whatever they were.
        let told = path.is_empty() && matches!(name.as_ref(), "kind" | "apiVersion");
        let older = old.filter(|_| !told).and_then(|o| o.member(name));
        match (s.properties.get(name.as_ref()), &s.additional) {
            (Some(inner), _) => out.merge(check(member, older.as_ref(), inner, &below(name))),
            (None, Additional::Each(inner)) => {
                out.merge(check(member, older.as_ref(), inner, &format!("{path}.{name}")));
            }
            (None, Additional::Allowed(false)) => {
                let detail = format!("Invalid value: \"\": {path}.{name} in body is a forbidden property");
                out.push(path, FieldErrorKind::Invalid, detail);
            }
            _ => {}
        }
    }
    for name in s.required.iter().filter(|n| !members.contains_key(n)) {
        out.push(&format!("{path}.{name}"), FieldErrorKind::Required, "Required value".into());
    }
}

/// Duplicates in sets and in maps' keys.
pub(crate) fn duplicates(value: &Value, s: &Schema, path: &Path, e: &mut Errors) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter() {
                let Some(inner) = s.member(name).0 else { continue };
                let at = if s.properties.contains_key(name.as_ref()) { path.child(name) } else { path.key(name) };
                duplicates(member, inner, &at, e);
            }
        }
        Value::Array(items) => {
            if let (ListKind::Map(_), Some((i, odd))) =
                (&s.list, items.iter().enumerate().find(|(_, v)| !matches!(v, Value::Object(_) | Value::Null)))
            {
                e.invalid(&path.index(i), odd.clone(), "must be an object for an array of list-type map");
            } else if s.list != ListKind::Atomic {
                repeated(items, &s.list, path, e);
            }
            let Some(inner) = &s.items else { return };
            for (i, v) in items.iter().enumerate() {
                duplicates(v, inner, &path.index(i), e);
            }
        }
        _ => {}
    }
}

/// Tells each value or key that stands more than once, at its second place.
fn repeated(items: &[Value], list: &ListKind, path: &Path, e: &mut Errors) {
    let mut times: std::collections::HashMap<String, usize> = std::collections::HashMap::with_capacity(items.len());
    for (i, v) in items.iter().enumerate() {
        let key = match list {
            ListKind::Map(keys) => {
                let mut m = ironkeel_object::Map::new();
                for k in keys {
                    if let Some(x) = v.get(k) {
                        m.insert(k.clone(), x.clone());
                    }
                }
                Value::Object(m)
            }
            _ => v.clone(),
        };
        let seen = times.entry(shown(&key)).or_default();
        *seen += 1;
        if *seen == 2 {
            e.duplicate(&path.index(i), key);
        }
    }
}
