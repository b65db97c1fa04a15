//! WebSocket: the handshake and the protocols that are spoken after it (RFC 6455 itself is tungstenite's).
//!
//! Answers to apimachinery's `wsstream`: the first of the client's subprotocols that the server knows is
//! taken, none at all means the oldest one, and only unknown ones are 403.

pub(crate) mod channel;
pub(crate) mod command;
pub(crate) mod port_forward;
mod tunnel;

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub(crate) use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

pub use tunnel::ByteTunnel;

/// The longest message that a client may send.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// How much may be queued for a client that does not read.
const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;

/// The limits of every WebSocket here.
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
        .max_write_buffer_size(MAX_QUEUED_BYTES)
}

/// Why a handshake is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not RFC 6455's handshake.
    Malformed,
    /// None of the client's subprotocols is known.
    Protocol,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Protocol => StatusCode::FORBIDDEN,
        }
    }
}

/// Whether the request asks for a WebSocket.
pub(crate) fn is_requested(headers: &HeaderMap) -> bool {
    has_token(headers, CONNECTION.as_str(), "upgrade") && has_token(headers, UPGRADE.as_str(), "websocket")
}

/// The first of the client's subprotocols that `choose` takes; `choose("")` when it names none.
pub(crate) fn negotiate<P>(headers: &HeaderMap, choose: impl Fn(&str) -> Option<P>) -> Result<(String, P), Refusal> {
    let offered: Vec<&str> = list(headers, SEC_WEBSOCKET_PROTOCOL.as_str()).collect();
    if offered.is_empty() {
        return choose("").map(|protocol| (String::new(), protocol)).ok_or(Refusal::Protocol);
    }
    offered
        .into_iter()
        .find_map(|name| choose(name).map(|protocol| (name.to_owned(), protocol)))
        .ok_or(Refusal::Protocol)
}

/// The 101 that accepts the handshake.
pub(crate) fn accept<B: Default>(headers: &HeaderMap, protocol: &str) -> Result<Response<B>, Refusal> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refusal::Malformed);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(Refusal::Malformed)?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| Refusal::Malformed)?;
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.is_empty() {
        let protocol = HeaderValue::from_str(protocol).map_err(|_| Refusal::Malformed)?;
        answer.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

/// The comma-separated values of every header called `name`.
pub(crate) fn list<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

/// Whether a header's list has `token`, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: &'static str, token: &str) -> bool {
    list(headers, name).any(|value| value.eq_ignore_ascii_case(token))
}
