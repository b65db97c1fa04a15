//! The engine-independent suite on this engine, a test for each check.

use std::sync::Arc;

use ironkeel_embedded::{Embedded, Options};
use ironkeel_store::Store;

/// A new store. Its directory goes at once, which does not disturb files that are open already.
async fn make() -> Arc<dyn Store> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Embedded::open(dir.path(), Options::default()).expect("the store opens")
}

ironkeel_store::conformance_tests!(make);
