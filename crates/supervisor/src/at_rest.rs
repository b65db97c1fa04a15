//! Encryption at rest: by a configuration file ([`Configured`]), or Secrets under a key of the cluster's own.

mod configured;

use std::path::Path;
use std::sync::Arc;

use ironkeel_encryption::{Encrypted, Provider, Rule, is_sealed};
use ironkeel_store::{Range, Store, prefix_end};

use crate::Error;
pub(crate) use configured::Configured;

/// Name of the cluster's own key, in values.
const KEY_NAME: &str = "ironkeel";
/// Its length in bytes: AES-256.
const KEY_BYTES: usize = 32;

/// The store with Secrets under the key in `path`, which is made where it is not there yet. Secrets
/// of before stay readable. A key that is missing while Secrets are encrypted is never made anew: it
/// would hide that they are lost, and the right one could not be put back beside it.
pub(crate) async fn own_key(store: Arc<dyn Store>, path: &Path) -> Result<Arc<dyn Store>, Error> {
    let prefixes = ironkeel_apiserver::store_prefixes("secrets");
    let key = match std::fs::read(path) {
        Ok(key) => key,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            for prefix in &prefixes {
                let range = Range { start: prefix.clone().into(), end: prefix_end(prefix), ..Range::default() };
                let found = store.range(range).await.map_err(|e| Error::ApiServer(e.to_string()))?;
                if found.kvs.iter().any(|kv| is_sealed(&kv.value)) {
                    return Err(Error::KeyLost { path: path.to_owned() });
                }
            }
            let mut key = vec![0; KEY_BYTES];
            let source = std::fs::File::open("/dev/urandom");
            source
                .and_then(|mut f| std::io::Read::read_exact(&mut f, &mut key))
                .map_err(Error::file("reading", "/dev/urandom"))?;
            ironkeel_auth::pki::write_private(path, &key)?;
            key
        }
        Err(e) => return Err(Error::file("reading", path)(e)),
    };
    let provider = Provider::aes_gcm(KEY_NAME, &key).filter(|_| key.len() == KEY_BYTES).ok_or_else(|| {
        Error::Record { path: path.to_owned(), reason: format!("a key of {KEY_BYTES} bytes is expected") }
    })?;
    let rule = Rule { prefixes, providers: vec![Arc::new(provider), Arc::new(Provider::identity())] };
    Ok(Arc::new(Encrypted::new(store, vec![rule])))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ironkeel_embedded::{Embedded, Options};
    use ironkeel_store::Condition;

    use super::*;

    #[tokio::test]
    async fn a_lost_key_is_told_and_not_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("encryption.key");
        let store: Arc<dyn Store> = Embedded::open(dir.path().join("store"), Options::default()).unwrap();
        let secret = b"/registry/secrets/default/a";
        store.put(secret[..].into(), b"plain"[..].into(), Condition::Always, 0).await.unwrap();

        let kept = own_key(store.clone(), &path).await.unwrap();
        assert_eq!(kept.get(secret, 0).await.unwrap().0.unwrap().value, "plain", "Secrets of before stay readable");
        kept.put(secret[..].into(), b"hidden"[..].into(), Condition::Always, 0).await.unwrap();
        let stored = store.get(secret, 0).await.unwrap().0.unwrap().value;
        assert!(is_sealed(&stored) && !stored.windows(6).any(|w| w == b"hidden"));
        let again = own_key(store.clone(), &path).await.unwrap();
        assert_eq!(again.get(secret, 0).await.unwrap().0.unwrap().value, "hidden");

        std::fs::remove_file(&path).unwrap();
        let error = own_key(store, &path).await.unwrap_err();
        assert!(matches!(error, Error::KeyLost { .. }), "{error}");
        assert!(!path.exists(), "a new key was made");
    }
}
