//! Why a call failed, in upstream's words.

use std::error::Error;

use crate::connect::ConnectError;

/// How much of an error's body is told, in bytes (upstream's limit).
const ERROR_TEXT_BYTES: usize = 2048;

/// The target cannot be called at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not an `https` URL.
    #[error("Unparsable URL: {0:?} is not an https URL")]
    Url(String),
    /// The bundle has no certificates.
    #[error("unable to load root certificates: unable to parse bytes as PEM block")]
    CaBundle,
    /// Certificate, key or token are not usable.
    #[error("unable to load the client's credentials: {0}")]
    Credentials(String),
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The target cannot be called at all.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// No answer: refused, not trusted, too late.
    #[error("{method} {url:?}: {why}")]
    Transport {
        /// As Go shows it: `Post`.
        method: &'static str,
        /// The whole URL.
        url: String,
        /// The innermost reason.
        why: String,
    },
    /// An answer that is no success.
    #[error("{message}")]
    Status {
        /// The HTTP status code.
        code: u16,
        /// `Status.reason` of the answer, or of the code.
        message: String,
        /// Whether the answer says when to ask again.
        retry_after: bool,
    },
    /// The answer is too long.
    #[error("the response is longer than {} bytes", crate::RESPONSE_MAX_BYTES)]
    TooLarge,
}

impl CallError {
    /// What a REST client makes of a status code. No more than the begin of a text is told of the body.
    pub(crate) fn status(code: u16, is_text: bool, retry_after: bool, body: &[u8]) -> Self {
        let told = &body[..body.len().min(ERROR_TEXT_BYTES)];
        let text = if is_text { String::from_utf8_lossy(told).trim().to_owned() } else { "unknown".to_owned() };
        let message = match code {
            400 => "the server rejected our request for an unknown reason".to_owned(),
            401 => "the server has asked for the client to provide credentials".to_owned(),
            403 if text.is_empty() => "forbidden".to_owned(),
            403 => text,
            404 => "the server could not find the requested resource".to_owned(),
            405 => "the server does not allow this method on the requested resource".to_owned(),
            406 => "the server was unable to respond with a content type that the client supports".to_owned(),
            409 => "the server reported a conflict".to_owned(),
            415 => "the server was not able to process the media type of the request".to_owned(),
            422 => "the server rejected our request due to an error in our request".to_owned(),
            429 => "the server has received too many requests and has asked us to try again later".to_owned(),
            503 => "the server is currently unable to handle the request".to_owned(),
            504 => "the server was unable to return a response in the time allotted, but may still be processing the request".to_owned(),
            500.. => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
            _ => format!("the server responded with the status code {code} but did not return more information"),
        };
        CallError::Status { code, message, retry_after }
    }

    /// Whether another attempt may help, as upstream's `DefaultShouldRetry` sees it. A webhook that refuses the
    /// connection, or is silent, is not asked again.
    pub fn is_transient(&self) -> bool {
        match self {
            CallError::Status { code, retry_after, .. } => matches!(code, 429 | 500 | 504) || *retry_after,
            CallError::Transport { why, .. } => why.to_ascii_lowercase().contains("connection reset by peer"),
            CallError::Target(_) | CallError::TooLarge => false,
        }
    }
}

/// The innermost reason that says something.
pub(crate) fn transport_text(e: &(dyn Error + 'static)) -> String {
    let mut here: Option<&(dyn Error + 'static)> = Some(e);
    let mut last = e.to_string();
    while let Some(error) = here {
        if let Some(own) = error.downcast_ref::<ConnectError>() {
            return own.to_string();
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>()
            && (hyper.is_incomplete_message() || hyper.is_closed())
        {
            return "EOF".into();
        }
        last = error.to_string();
        here = error.source();
    }
    last
}
