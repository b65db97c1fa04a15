//! Field errors, as `Status.details.causes` tells them.

use std::fmt;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
