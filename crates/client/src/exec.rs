//! Credential plugins: a program that prints who we are (client-go's `exec`).

use std::process::Stdio;
use std::sync::Arc;

use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::ExecError;
use crate::credentials::bearer;
use crate::identity::Identity;

/// How long before its end a credential counts as expired: a request takes time, too.
const EXPIRY_MARGIN: SignedDuration = SignedDuration::from_secs(10);

/// How to call a plugin.
pub(crate) struct Exec {
    pub(crate) version: String,
    pub(crate) command: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) interactive: bool,
    pub(crate) spec: Value,
}

/// What a plugin gave.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) header: Option<HeaderValue>,
    pub(crate) identity: Option<Arc<Identity>>,
    expires: Option<Timestamp>,
}

impl Given {
    pub(crate) fn expired(&self) -> bool {
        self.expires.is_some_and(|end| Timestamp::now() + EXPIRY_MARGIN >= end)
    }
}

impl Exec {
    pub(crate) async fn run(&self) -> Result<Given, ExecError> {
        let ask = json!({ "apiVersion": self.version, "kind": "ExecCredential", "spec": self.spec });
        let mut command = Command::new(&self.command);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("KUBERNETES_EXEC_INFO", ask.to_string()).stderr(Stdio::inherit()).kill_on_drop(true);
        command.stdin(if self.interactive { Stdio::inherit() } else { Stdio::null() });
        let start = |source| ExecError::Start { command: self.command.clone(), source };
        let output = command.output().await.map_err(start)?;
        if !output.status.success() {
            return Err(ExecError::Failed { command: self.command.clone(), status: output.status });
        }
        let answer: Value = serde_yaml_ng::from_slice(&output.stdout).map_err(ExecError::Output)?;
        self.read(&answer)
    }

    fn read(&self, answer: &Value) -> Result<Given, ExecError> {
        let version = answer.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        if version != self.version {
            return Err(ExecError::Version(version.to_owned(), self.version.clone()));
        }
        let status = answer.get("status").filter(|s| s.is_object()).ok_or(ExecError::Missing("status field"))?;
        let text = |name: &str| status.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
        let identity = match (text("clientCertificateData"), text("clientKeyData")) {
            (Some(certificate), Some(key)) => {
                Some(Arc::new(Identity { certificate: certificate.into(), key: key.into() }))
            }
            (None, None) => None,
            _ => return Err(ExecError::Missing("certificate together with its key")),
        };
        let token = text("token");
        if token.is_none() && identity.is_none() {
            return Err(ExecError::Missing("token or cert/key pair"));
        }
        let header = token.map(|token| bearer(token).ok_or(ExecError::Malformed("token"))).transpose()?;
        let expires = text("expirationTimestamp").map(str::parse).transpose();
        let expires = expires.map_err(|_: jiff::Error| ExecError::Malformed("expirationTimestamp"))?;
        Ok(Given { header, identity, expires })
    }
}
