//! What an operator's files and a caller's credentials say: configurations, keys, tokens, names of images. The first
//! byte chooses the reader.
#![no_main]

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ironkeel_audit::Policy;
use ironkeel_auth::{AbacPolicies, KeySet, SigningKey, read_authentication, read_authorization};
use ironkeel_encryption::Configuration;
use ironkeel_runtime::ImageName;
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let mut keys = KeySet::default();
    keys.add_signing_key(&SigningKey::generate().expect("a key"));
    keys
});

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    match first % 10 {
        0 => {
            if let Ok(config) = kube::config::Kubeconfig::from_yaml(text) {
                let _ = config.contexts.len();
            }
        }
        1 => drop(Configuration::read(text)),
        2 => drop(Policy::read(text.as_bytes())),
        3 => {
            let mut keys = KeySet::default();
            keys.add_pem(text);
            let _ = (keys.jwks(), SigningKey::from_pem(text).is_some());
        }
        4 => {
            // Each line is one part of a token, in plain text.
            let token: Vec<String> = text.split('\n').map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
            assert!(KEYS.verify(&token.join(".")).is_err(), "nobody signed it");
            assert!(KEYS.verify(text).is_err(), "nobody signed it");
        }
        5 => {
            if let Ok(name) = ImageName::parse(text) {
                for written in [name.tagged(), name.digested()].into_iter().flatten() {
                    let again = ImageName::parse(&written).expect("a name as it is written");
                    assert_eq!(again.repository_name(), name.repository_name());
                }
            }
        }
        6 => {
            let mut keys = KeySet::default();
            if let Ok(jwks) = serde_json::from_str(text) {
                keys.add_jwks(&jwks);
            }
        }
        7 => drop(read_authentication(text, &["https://kubernetes.default.svc".to_owned()])),
        8 => drop(read_authorization(text)),
        _ => drop(AbacPolicies::parse(text)),
    }
});
