//! Field errors, as `Status.details.causes` tells them.

use std::fmt;

use ironkeel_object::{Number, Value, quoted};

/// A path to a field: `spec.containers[0].image`, `metadata.labels[a.b/c]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// Starts at a root field; an empty name is the object itself.
    pub fn new(root: &str) -> Self {
        Path(root.to_owned())
    }
    /// A member.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Path(name.to_owned()) } else { Path(format!("{}.{name}", self.0)) }
    }
    /// An element.
    #[must_use]
    pub fn index(&self, i: usize) -> Self {
        Path(format!("{}[{i}]", self.0))
    }
    /// An entry of a map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Path(format!("{}[{key}]", self.0))
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldErrorKind {
    /// A value is missing.
    Required,
    /// A value is malformed or out of bounds.
    Invalid,
    /// A value is none of the allowed ones.
    NotSupported,
    /// A value must not be set here.
    Forbidden,
    /// A value stands twice.
    Duplicate,
    /// A value refers to something that is not there.
    NotFound,
    /// Too long, in bytes or characters.
    TooLong,
    /// Too many items.
    TooMany,
    /// Of the wrong type.
    TypeInvalid,
    /// A check could not be made.
    Internal,
    /// Wrong, and let pass: it was so before, or is a matter of taste. The client is warned.
    Tolerated,
}

impl FieldErrorKind {
    /// The machine-readable cause (`FieldValueInvalid`).
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
            Self::Tolerated => "",
        }
    }
}

/// One violated rule. `message` is the whole text after `path: `, as upstream words it:
/// `Invalid value: "a_b": a lowercase RFC 1123 label must …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub path: Path,
    /// What kind of violation.
    pub kind: FieldErrorKind,
    /// The text after the path.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// How much text of violations is kept, in bytes. Each may show a whole list, or all names that would be fine, so that an
/// object as large as a request's body could be answered with gigabytes; what comes after this much is counted only.
const TEXT_MAX_BYTES: usize = 2 << 20;

/// Collects violations in upstream's words.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    list: Vec<FieldError>,
    count: usize,
    text_bytes: usize,
}

impl Errors {
    /// Whether one more is counted only.
    fn full(&mut self) -> bool {
        let full = self.text_bytes > TEXT_MAX_BYTES;
        self.count += usize::from(full);
        full
    }
    fn add(&mut self, path: &Path, kind: FieldErrorKind, head: String, detail: &str) {
        if self.full() {
            return;
        }
        self.count += 1;
        let message = if detail.is_empty() { head } else { format!("{head}: {detail}") };
        self.text_bytes += path.as_str().len() + message.len();
        self.list.push(FieldError { path: path.clone(), kind, message });
    }
    pub(crate) fn required(&mut self, path: &Path, detail: &str) {
        self.add(path, FieldErrorKind::Required, "Required value".into(), detail);
    }
    pub(crate) fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: &str) {
        if self.full() {
            return;
        }
        self.add(path, FieldErrorKind::Invalid, format!("Invalid value: {}", shown(&value.into())), detail);
    }
    /// One `Invalid value` a message, as upstream does for name rules.
    pub(crate) fn invalid_each(&mut self, path: &Path, value: &str, messages: Vec<String>) {
        for m in messages {
            self.invalid(path, value, &m);
        }
    }
    pub(crate) fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|s| quoted(s)).collect();
        let detail = if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        self.add(path, FieldErrorKind::NotSupported, format!("Unsupported value: {}", shown(&value.into())), &detail);
    }
    pub(crate) fn forbidden(&mut self, path: &Path, detail: &str) {
        self.add(path, FieldErrorKind::Forbidden, "Forbidden".into(), detail);
    }
    pub(crate) fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.add(path, FieldErrorKind::Duplicate, format!("Duplicate value: {}", shown(&value.into())), "");
    }
    /// A `Duplicate value` shown in a form of its own, with a reason.
    pub(crate) fn duplicate_as(&mut self, path: &Path, shown: &str, detail: &str) {
        self.add(path, FieldErrorKind::Duplicate, format!("Duplicate value: {shown}"), detail);
    }
    pub(crate) fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        self.add(path, FieldErrorKind::NotFound, format!("Not found: {}", shown(&value.into())), "");
    }
    pub(crate) fn internal(&mut self, path: &Path, detail: &str) {
        self.add(path, FieldErrorKind::Internal, "Internal error".into(), detail);
    }
    pub(crate) fn too_long(&mut self, path: &Path, max_bytes: usize) {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        self.add(path, FieldErrorKind::TooLong, "Too long".into(), &format!("may not be more than {max_bytes} {unit}"));
    }
    pub(crate) fn too_many(&mut self, path: &Path, actual: usize, max_items: usize) {
        let unit = if max_items == 1 { "item" } else { "items" };
        let detail = format!("must have at most {max_items} {unit}");
        self.add(path, FieldErrorKind::TooMany, format!("Too many: {actual}"), &detail);
    }
    /// `field is immutable`, where the values differ; absent and empty are equal.
    pub(crate) fn immutable(&mut self, path: &Path, new: Option<&Value>, old: Option<&Value>) {
        if !crate::equality::same(new, old) {
            let missing = match old {
                Some(Value::String(_)) => Value::from(""),
                _ => Value::Null,
            };
            self.invalid(path, new.filter(|v| !v.is_null()).cloned().unwrap_or(missing), "field is immutable");
        }
    }
    /// Not below zero.
    pub(crate) fn non_negative(&mut self, path: &Path, value: Option<i64>) {
        if let Some(v) = value.filter(|v| *v < 0) {
            self.invalid(path, v, "must be greater than or equal to 0");
        }
    }
    /// How many violations there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }
    /// An `Invalid value` that does not show the value.
    pub(crate) fn invalid_bare(&mut self, path: &Path, detail: &str) {
        self.add(path, FieldErrorKind::Invalid, "Invalid value".into(), detail);
    }
    /// A `Duplicate value` that does not show the value.
    pub(crate) fn duplicate_bare(&mut self, path: &Path) {
        self.add(path, FieldErrorKind::Duplicate, "Duplicate value".into(), "");
    }
    /// A warning.
    pub(crate) fn tolerated(&mut self, path: &Path, message: String) {
        self.add(path, FieldErrorKind::Tolerated, message, "");
    }
    /// An `Invalid value` whose value upstream shows in a form of its own.
    pub(crate) fn invalid_as(&mut self, path: &Path, shown: &str, detail: &str) {
        if self.full() {
            return;
        }
        self.add(path, FieldErrorKind::Invalid, format!("Invalid value: {shown}"), detail);
    }
    /// [`Errors::not_found`] with a reason.
    pub(crate) fn not_found_because(&mut self, path: &Path, value: &str, detail: &str) {
        if self.full() {
            return;
        }
        self.add(path, FieldErrorKind::NotFound, format!("Not found: {}", quoted(value)), detail);
    }
    /// Takes over what was found elsewhere.
    pub(crate) fn extend(&mut self, found: Vec<FieldError>) {
        self.count += found.len();
        self.text_bytes += found.iter().map(|e| e.path.as_str().len() + e.message.len()).sum::<usize>();
        self.list.extend(found);
    }
    pub(crate) fn into_vec(self) -> Vec<FieldError> {
        self.list
    }
}

/// A value as an error message shows it: strings quoted, scalars plain, the rest as JSON.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(Number::Int(i)) => i.to_string(),
        Value::Number(Number::Float(f)) => f.to_string(),
        Value::String(s) => quoted(s),
        Value::Array(a) => format!("[{}]", a.iter().map(shown).collect::<Vec<_>>().join(",")),
        Value::Object(m) => {
            let members: Vec<String> = m.iter().map(|(k, v)| format!("{}:{}", quoted(k), shown(v))).collect();
            format!("{{{}}}", members.join(","))
        }
    }
}
