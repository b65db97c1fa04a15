//! Errors of compiling and of running, worded as cel-go words them.

use std::fmt;

/// What went wrong while an expression ran.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A field or a map's key that is not there.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// A variable that the caller did not bind.
    #[error("no such attribute(s): {0}")]
    NoSuchAttribute(String),
    /// Operands of types that the operation is not made for; seen with `dyn` only.
    #[error("no such overload")]
    NoSuchOverload,
    /// As above, where cel-go names the function and the operands.
    #[error("no such overload: {0}")]
    NoSuchOverloadFor(String),
    /// A list's index beyond its end.
    #[error("index out of bounds: {0}")]
    IndexOutOfBounds(i64),
    /// Division by 0.
    #[error("division by zero")]
    DivisionByZero,
    /// Modulus by 0.
    #[error("modulus by zero")]
    ModulusByZero,
    /// Beyond 64 signed bits.
    #[error("integer overflow")]
    IntegerOverflow,
    /// Beyond 64 unsigned bits.
    #[error("unsigned integer overflow")]
    UnsignedIntegerOverflow,
    /// A duration beyond 64 bits of nanoseconds.
    #[error("duration overflow")]
    DurationOverflow,
    /// A timestamp before the year 1 or after 9999.
    #[error("timestamp overflow")]
    TimestampOverflow,
    /// `optional.none().value()`.
    #[error("optional.none() dereference")]
    NoneDereference,
    /// A function refused its arguments; the text is the function's.
    #[error("{0}")]
    Refused(String),
    /// A value that has no form in JSON was asked for as one.
    #[error("unsupported conversion from {0} to a JSON value")]
    NotJson(String),
    /// One expression cost more than [`crate::PER_CALL_LIMIT`].
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimitExceeded,
    /// The [`crate::Budget`] that several expressions share is used up.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    OutOfBudget,
    /// The caller's interrupt was set.
    #[error("operation interrupted")]
    Interrupted,
}

impl EvalError {
    /// Whether nothing more may run within this budget: logic operators do not absorb these.
    pub fn is_fatal(&self) -> bool {
        matches!(self, EvalError::CostLimitExceeded | EvalError::OutOfBudget | EvalError::Interrupted)
    }
}

/// Why an expression does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Syntax or type errors; the text is cel-go's: `ERROR: <input>:1:6: …`, the line and a caret.
    #[error("{0}")]
    Issues(Issues),
    /// It compiles, but to a type that has no use there. Upstream's text: `must evaluate to bool but got int`.
    #[error("{0}")]
    OutputType(String),
}

/// The errors of one expression.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issues {
    /// In the order of the source.
    pub issues: Vec<Issue>,
    pub(crate) text: String,
}

/// One error with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
