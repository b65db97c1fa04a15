//! Encryption at rest: by a configuration file, or Secrets under a key of the cluster's own.

use std::path::Path;
use std::sync::Arc;

use ironkeel_encryption::{Configuration, Encrypted, Provider, Rule};
use ironkeel_store::Store;

use crate::Error;

/// Name of the cluster's own key, in values.
const KEY_NAME: &str = "ironkeel";
/// Its length in bytes: AES-256.
const KEY_BYTES: usize = 32;

/// The store as an EncryptionConfiguration file says.
pub(crate) fn configured(store: Arc<dyn Store>, path: &Path) -> Result<Arc<dyn Store>, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::file("reading", path))?;
    let configuration = Configuration::read(&text)
        .map_err(|e| Error::ApiServer(format!("--encryption-provider-config {}: {e}", path.display())))?;
    let rules = configuration.rules.into_iter().map(|rule| Rule {
        prefixes: rule.resources.iter().flat_map(|r| ironkeel_apiserver::store_prefixes(r)).collect(),
        providers: rule.providers,
    });
    Ok(Arc::new(Encrypted::new(store, rules.collect())))
}

/// The store with Secrets under the key in `path`, which is made where it is not there yet. Secrets
/// of before stay readable.
pub(crate) fn own_key(store: Arc<dyn Store>, path: &Path) -> Result<Arc<dyn Store>, Error> {
    let key = match std::fs::read(path) {
        Ok(key) => key,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
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
    let rule =
        Rule { prefixes: ironkeel_apiserver::store_prefixes("secrets"), providers: vec![provider, Provider::Identity] };
    Ok(Arc::new(Encrypted::new(store, vec![rule])))
}
