//! The `metav1.Status` that ends a remote command.
//!
//! Version 4 and later of the protocol send it as JSON, so that a client can tell an exit code from a
//! failure; before, a success was silence and a failure its message.

use serde_json::{Value, json};

use crate::{ExitStatus, StreamError};

/// The status of a command that ran.
pub(crate) fn exited(command: &[String], status: ExitStatus) -> Value {
    if status.0 == 0 {
        return success();
    }
    let code = status.0;
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: error executing command {command:?}, exit code {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The status of an attach that ended, or a command that returned zero.
pub(crate) fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

/// The status of a session that failed before there was an exit code.
pub(crate) fn failed(doing: &str, error: &StreamError) -> Value {
    let message = format!("{doing}: {error}");
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    })
}

/// What goes onto the error stream; `None` sends nothing.
pub(crate) fn encode(status: &Value, as_json: bool) -> Option<Vec<u8>> {
    if as_json {
        return Some(status.to_string().into_bytes());
    }
    status["message"].as_str().map(|message| message.as_bytes().to_vec())
}
