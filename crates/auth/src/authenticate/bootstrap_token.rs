//! Bootstrap tokens (`abcdef.0123456789abcdef`): secrets `bootstrap-token-<id>` in kube-system.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ironkeel_object::{ObjectMeta, ObjectSource, Value};
use ironkeel_schema::resource;

use super::equal_in_constant_time;
use crate::{AuthError, UserInfo};

const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;

/// The user of a bootstrap token; `None` where `token` has another form or its secret is unknown.
pub(super) fn authenticate(token: &str, now: i64, source: &dyn ObjectSource) -> Result<Option<UserInfo>, AuthError> {
    let Some((id, secret)) = token.split_once('.') else { return Ok(None) };
    let plain = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !plain(id, ID_CHARS) || !plain(secret, SECRET_CHARS) {
        return Ok(None);
    }
    let secrets = resource("", "v1", "secrets").expect("the table has secrets");
    let Some(stored) = source.get(secrets, "kube-system", &format!("bootstrap-token-{id}")) else { return Ok(None) };
    let refuse = |reason| Err(AuthError::BootstrapToken { id: id.to_owned(), reason });
    if stored.deletion_timestamp().is_some() {
        return refuse("it is being deleted");
    }
    if stored.str_at(&["type"]) != Some("bootstrap.kubernetes.io/token") {
        return refuse("its secret has another type");
    }
    let same = equal_in_constant_time(&data(&stored, "token-secret"), secret.as_bytes());
    if !same || data(&stored, "token-id") != id.as_bytes() {
        return Ok(None);
    }
    let expiration = data(&stored, "expiration");
    if !expiration.is_empty() {
        let at = std::str::from_utf8(&expiration).ok().and_then(|t| t.parse::<jiff::Timestamp>().ok());
        if at.is_none_or(|t| t.as_second() <= now) {
            return refuse("it has expired");
        }
    }
    if data(&stored, "usage-bootstrap-authentication") != b"true" {
        return refuse("it is not for authentication");
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    let extra = String::from_utf8(data(&stored, "auth-extra-groups")).unwrap_or_default();
    for group in extra.split(',').filter(|g| !g.is_empty()) {
        if !bootstrap_group(group) {
            return refuse("its auth-extra-groups must begin with system:bootstrappers:");
        }
        groups.push(group.to_owned());
    }
    Ok(Some(UserInfo::new(format!("system:bootstrap:{id}"), groups)))
}

fn bootstrap_group(group: &str) -> bool {
    group.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-';
        !rest.is_empty() && rest.bytes().all(inner) && rest.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric())
    })
}

fn data(secret: &Value, key: &str) -> Vec<u8> {
    secret.str_at(&["data", key]).and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default()
}
