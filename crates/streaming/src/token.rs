//! One-time tokens: what a URL of the streaming server stands for.
//!
//! Answers to upstream's `requestCache`: a token names one request, works once, and is forgotten after
//! [`TOKEN_TTL`]. At [`MAX_PENDING_REQUESTS`] unopened requests the next is refused.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;

use crate::{AttachRequest, ExecRequest, PortForwardRequest, StreamError};

/// How long a URL may wait to be opened.
pub const TOKEN_TTL: Duration = Duration::from_secs(60);
/// How many URLs may wait to be opened at once.
pub const MAX_PENDING_REQUESTS: usize = 1000;
/// A token's randomness.
const TOKEN_BYTES: usize = 24;

/// What was asked for when the token was made.
#[derive(Debug)]
pub(crate) enum Pending {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward(PortForwardRequest),
}

impl Pending {
    /// The first segment of the request's path.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }
}

#[derive(Default)]
pub(crate) struct Tokens {
    waiting: Mutex<HashMap<String, (Instant, Pending)>>,
}

impl Tokens {
    /// Gives out a token for `request`.
    pub(crate) fn insert(&self, now: Instant, request: Pending) -> Result<String, StreamError> {
        let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; TOKEN_BYTES]>());
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, (expires, _)| *expires > now);
        if waiting.len() >= MAX_PENDING_REQUESTS {
            return Err(StreamError::TooManyRequests { limit: MAX_PENDING_REQUESTS });
        }
        waiting.insert(token.clone(), (now + TOKEN_TTL, request));
        Ok(token)
    }

    /// Takes the request of `token`; the second caller gets nothing, whatever the first does with it.
    pub(crate) fn take(&self, now: Instant, token: &str) -> Option<Pending> {
        let (expires, request) = self.waiting.lock().remove(token)?;
        (expires > now).then_some(request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request() -> Pending {
        Pending::PortForward(PortForwardRequest { sandbox_id: "a".into(), ports: Vec::new() })
    }

    #[test]
    fn a_token_expires_and_makes_room() {
        let tokens = Tokens::default();
        let now = Instant::now();
        let later = now + TOKEN_TTL;
        let first = tokens.insert(now, request()).unwrap();
        for _ in 1..MAX_PENDING_REQUESTS {
            tokens.insert(now, request()).unwrap();
        }
        assert!(matches!(tokens.insert(now, request()), Err(StreamError::TooManyRequests { .. })));
        assert!(tokens.take(later, &first).is_none());
        let again = tokens.insert(later, request()).unwrap();
        assert!(tokens.take(later, &again).is_some());
        assert!(tokens.take(later, &again).is_none());
    }
}
