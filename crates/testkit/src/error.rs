//! Why something that a test asked for did not happen.

use std::path::PathBuf;
use std::time::Duration;

use crate::Output;

/// Told as a check's failure: whatever is needed to see the cause without running it again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{step}: {source}")]
    Io {
        /// What was tried.
        step: String,
        /// Its words.
        source: std::io::Error,
    },
    /// A command ended otherwise than it should have.
    #[error("{expected}: {output}")]
    Command {
        /// What should have happened.
        expected: String,
        /// What did.
        output: Box<Output>,
    },
    /// Something did not come about.
    #[error("{what} did not come about within {limit:?}; last seen: {last}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// The state at the end.
        last: String,
    },
    /// A process that should stay ended.
    #[error("{what} ended by itself ({status}); its last words:\n{words}")]
    Ended {
        /// Which.
        what: String,
        /// How.
        status: String,
        /// What it said.
        words: String,
    },
    /// An answer that is not what it should be.
    #[error("{what}: expected {expected}, got {got}")]
    Unexpected {
        /// Of what.
        what: String,
        /// What should have been.
        expected: String,
        /// What was.
        got: String,
    },
    /// A file that is needed is not there.
    #[error("{path} is missing: {mend}")]
    Missing {
        /// Which.
        path: PathBuf,
        /// How to get it.
        mend: &'static str,
    },
}

impl Error {
    pub(crate) fn io(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let step = step.into();
        move |source| Error::Io { step, source }
    }
}

/// What a check says.
pub type Outcome<T = ()> = Result<T, Error>;

/// Fails a check unless `holds`.
pub fn expect(what: &str, expected: impl std::fmt::Display, got: impl std::fmt::Display, holds: bool) -> Outcome {
    if holds {
        return Ok(());
    }
    Err(Error::Unexpected { what: what.to_owned(), expected: expected.to_string(), got: got.to_string() })
}

/// Fails a check unless `text` has every one of `words`.
pub fn expect_words(what: &str, text: &str, words: &[&str]) -> Outcome {
    match words.iter().find(|w| !text.contains(**w)) {
        None => Ok(()),
        Some(missing) => expect(what, format!("{missing:?}"), text, false),
    }
}
