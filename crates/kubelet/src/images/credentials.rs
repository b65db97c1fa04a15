//! Registry credentials from image pull secrets: `.dockerconfigjson` and the older `.dockercfg`. They go to the
//! runtime with a pull and nowhere else.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use ironkeel_cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::reference;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
}

/// The credentials in `secrets` that fit the image, the most specific first.
pub(crate) fn matching(image: &str, secrets: &[Secret]) -> Vec<AuthConfig> {
    let Ok(reference) = reference::parse(image) else { return Vec::new() };
    let place = format!("{}/{}", reference.registry, reference.repository);
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (key, entry) in entries(secret) {
            let pattern = normalize(&key);
            if fits(&pattern, &reference.registry, &place) {
                found.push((pattern.len(), auth(entry, key)));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> BTreeMap<String, Entry> {
    let data = |key: &str| secret.data.as_ref()?.get(key).map(|data| data.0.as_slice());
    if let Some(json) = data(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(json).map(|config| config.auths).unwrap_or_default();
    }
    data(".dockercfg").and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
}

fn normalize(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    if key == "index.docker.io" { "docker.io".into() } else { key.to_owned() }
}

/// `*.example.org/team` fits `a.example.org/team/app`.
fn fits(pattern: &str, registry: &str, place: &str) -> bool {
    let (host, path) = pattern.split_once('/').map_or((pattern, ""), |(host, path)| (host, path));
    let host_fits = host == registry || {
        let (patterns, parts): (Vec<_>, Vec<_>) = (host.split('.').collect(), registry.split('.').collect());
        patterns.len() == parts.len() && patterns.iter().zip(&parts).all(|(p, part)| *p == "*" || p == part)
    };
    let own_path = place.split_once('/').map_or("", |(_, path)| path);
    host_fits
        && (path.is_empty() || own_path == path || own_path.strip_prefix(path).is_some_and(|r| r.starts_with('/')))
}

fn auth(entry: Entry, server: String) -> AuthConfig {
    let decoded = STANDARD.decode(&entry.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) if entry.username.is_empty() => {
            (user.to_owned(), password.trim_end_matches('\0').into())
        }
        _ => (entry.username, entry.password),
    };
    AuthConfig {
        username,
        password,
        server_address: server,
        identity_token: entry.identity_token,
        ..AuthConfig::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn the_most_specific_entry_comes_first() {
        let json = serde_json::json!({"auths": {
            "https://r.example.org/v1/": {"auth": STANDARD.encode("wide:1")},
            "r.example.org/team": {"username": "narrow", "password": "2"},
            "*.example.net": {"username": "star", "password": "3"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "4"}}});
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), ByteString(json.to_string().into_bytes()))]);
        let secrets = [Secret { data: Some(data), ..Secret::default() }];
        let users =
            |image: &str| -> Vec<String> { matching(image, &secrets).into_iter().map(|auth| auth.username).collect() };
        assert_eq!(users("r.example.org/team/app:1"), ["narrow", "wide"]);
        assert_eq!(users("r.example.org/teams/app:1"), ["wide"]);
        assert_eq!(users("a.example.net/x"), ["star"]);
        assert_eq!(users("busybox"), ["hub"]);
    }
}
