//! The engine-independent suite on an encrypted store: each check with ciphers that bind a value to its key
//! and with one that does not.

use std::sync::Arc;

use ironkeel_embedded::{Embedded, Options};
use ironkeel_encryption::{Encrypted, Provider, Rule};
use ironkeel_store::Store;

/// A new store that encrypts whatever is put. Its directory goes at once, which does not disturb open files.
fn encrypted(provider: Provider) -> Arc<dyn Store> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let inner = Embedded::open(dir.path(), Options::default()).expect("the store opens");
    Arc::new(Encrypted::new(inner, vec![Rule { prefixes: vec![Vec::new()], providers: vec![Arc::new(provider)] }]))
}

mod with_aes_gcm {
    use super::*;

    async fn make() -> Arc<dyn Store> {
        encrypted(Provider::aes_gcm("k", &[7; 32]).expect("a key of 32 bytes"))
    }

    ironkeel_store::conformance_tests!(make);
}

mod with_secretbox {
    use super::*;

    async fn make() -> Arc<dyn Store> {
        encrypted(Provider::secretbox("k", &[7; 32]).expect("a key of 32 bytes"))
    }

    ironkeel_store::conformance_tests!(make);
}
