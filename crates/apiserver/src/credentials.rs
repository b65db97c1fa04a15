//! The token that a request brings: in `Authorization`, or, from browsers that open a WebSocket and can
//! send no header, among the subprotocols (`base64url.bearer.authorization.k8s.io.…`).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

/// What stands before the token.
const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// A bearer token and where it stood.
pub(crate) struct Bearer {
    pub(crate) token: String,
    /// The other subprotocols, where it stood among them.
    others: Option<String>,
}

/// A token that cannot be one.
#[derive(Debug)]
pub(crate) struct Malformed;

impl Bearer {
    /// The token of a request; `None` where it brings none.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Bearer>, Malformed> {
        if let Some(given) = headers.get(AUTHORIZATION) {
            let text = String::from_utf8_lossy(given.as_bytes());
            let mut words = text.trim().splitn(3, ' ');
            let scheme = words.next().unwrap_or_default();
            let token = words.next().filter(|t| scheme.eq_ignore_ascii_case("bearer") && !t.is_empty());
            if let Some(token) = token {
                return Ok(Some(Bearer { token: token.to_owned(), others: None }));
            }
        }
        Self::among_subprotocols(headers)
    }

    fn among_subprotocols(headers: &HeaderMap) -> Result<Option<Bearer>, Malformed> {
        if !has(headers, &CONNECTION, "upgrade") || !has(headers, &UPGRADE, "websocket") {
            return Ok(None);
        }
        let (mut token, mut others) = (None, Vec::new());
        for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
            for protocol in value.to_str().map_err(|_| Malformed)?.split(',').map(str::trim) {
                match protocol.strip_prefix(PREFIX) {
                    None => others.push(protocol),
                    Some(_) if token.is_some() => return Err(Malformed),
                    Some(encoded) => {
                        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Malformed)?;
                        token = Some(String::from_utf8(bytes).map_err(|_| Malformed)?);
                    }
                }
            }
        }
        match token.filter(|t| !t.is_empty()) {
            // There must be one to answer with.
            Some(_) if others.is_empty() => Err(Malformed),
            token => Ok(token.map(|token| Bearer { token, others: Some(others.join(",")) })),
        }
    }

    /// Takes the token out of the subprotocols: nobody behind must see it or answer with it.
    pub(crate) fn take_out(&self, headers: &mut HeaderMap) {
        if let Some(others) = self.others.as_deref().and_then(|o| HeaderValue::from_str(o).ok()) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
        }
    }
}

fn has(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let texts = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    texts.flat_map(|t| t.split(',')).any(|t| t.trim().eq_ignore_ascii_case(wanted))
}
