//! Why bytes could not be decoded, and what strict decoding finds; worded as upstream does.

use std::fmt;

use ironkeel_object::QuantityError;

/// Bytes that are no object. `Display` is the text that upstream puts behind
/// `… cannot be handled as a Deployment: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not UTF-8.
    #[error("invalid UTF-8 at byte {offset}")]
    Utf8 {
        /// The first bad byte.
        offset: usize,
    },
    /// The JSON text ends too early.
    #[error("unexpected end of JSON input")]
    UnexpectedEnd,
    /// Not JSON.
    #[error("invalid character {found} {context}")]
    Syntax {
        /// The character, quoted as Go does.
        found: String,
        /// Where: `looking for beginning of value`.
        context: &'static str,
        /// Its offset in bytes.
        offset: usize,
    },
    /// A number beyond what a 64-bit float holds.
    #[error("json: cannot unmarshal number {literal} into Go value of type float64")]
    NumberRange {
        /// The number.
        literal: String,
    },
    /// Nested beyond [`crate::MAX_NESTING`].
    #[error("exceeded max depth")]
    TooDeep,
    /// A value of the wrong JSON type.
    #[error("json: cannot unmarshal {found} into Go {target} of type {expected}")]
    Type {
        /// `string`, `number 1.5`, …
        found: String,
        /// `struct field DeploymentSpec.spec.replicas`, or `value`.
        target: String,
        /// Go's name of the expected type.
        expected: String,
    },
    /// Not a quantity.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// Not a time.
    #[error("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"")]
    Time {
        /// What stands there.
        text: String,
        /// Go's layout of the expected form.
        layout: &'static str,
    },
    /// Not a duration.
    #[error("time: invalid duration {text:?}")]
    Duration {
        /// What stands there.
        text: String,
    },
    /// Not base64.
    #[error("illegal base64 data at input byte {offset}")]
    Base64 {
        /// The first bad byte.
        offset: usize,
    },
    /// Not YAML.
    #[error("yaml: line {line}: {message}")]
    Yaml {
        /// Line, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// More nodes, after expanding aliases, than allowed.
    #[error("yaml: document contains excessive aliasing")]
    YamlAliases,
    /// Not CBOR, or CBOR that no object can be made of.
    #[error("cbor: {0}")]
    Cbor(&'static str),
    /// Not a protobuf envelope, or a message cut short or malformed.
    #[error("protobuf: {0}")]
    Protobuf(&'static str),
    /// A protobuf message of a kind without a type.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// `apps/v1`.
        api_version: String,
        /// Kind.
        kind: String,
    },
}

/// What strict decoding finds; with `fieldValidation=Warn` a warning, with `Strict` an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `spec.template.spec.containers[0].foo`.
    pub path: String,
    /// What is wrong there.
    pub kind: ProblemKind,
}

/// So many problems of one document are told; more would be no help to anybody (upstream: as many).
pub const MAX_PROBLEMS: usize = 100;

/// Bytes of paths beyond which no further problem is told.
const MAX_PROBLEM_BYTES: usize = 1 << 20;

/// Notes a problem, while there are few enough.
pub(crate) fn note(problems: &mut Vec<Problem>, make: impl FnOnce() -> Problem) {
    // Few, but each with the names of all that is above it.
    if problems.len() < MAX_PROBLEMS && problems.iter().map(|p| p.path.len()).sum::<usize>() < MAX_PROBLEM_BYTES {
        problems.push(make());
    }
}

/// Kinds of [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The type has no such field; it was dropped.
    UnknownField,
    /// The field stands there more than once; the last one was taken.
    DuplicateField,
    /// Keys of YAML stand there more than once; [`Problem::path`] is the whole text, with their lines.
    DuplicateKeys,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ProblemKind::UnknownField => "unknown field",
            ProblemKind::DuplicateField => "duplicate field",
            ProblemKind::DuplicateKeys => return f.write_str(&self.path),
        };
        write!(f, "{what} \"{}\"", self.path)
    }
}
