//! Why a patch could not be applied, with the HTTP status that upstream answers.

/// A patch that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Not a patch of its kind.
    #[error("{0}")]
    Malformed(String),
    /// A patch that does not fit the object, or whose test failed.
    #[error("{0}")]
    Inapplicable(String),
    /// More operations than allowed.
    #[error("The allowed maximum operations in a JSON patch is {max}, got {got}")]
    TooManyOperations {
        /// The limit.
        max: usize,
        /// What the patch has.
        got: usize,
    },
}

impl PatchError {
    /// Whether a `test` operation did not hold.
    pub fn is_failed_test(&self) -> bool {
        matches!(self, PatchError::Inapplicable(why) if why.contains("testing value") || why.ends_with("test failed"))
    }

    /// 400, 413 or 422.
    pub fn status(&self) -> u16 {
        match self {
            PatchError::Malformed(_) => 400,
            PatchError::TooManyOperations { .. } => 413,
            PatchError::Inapplicable(_) => 422,
        }
    }
}
