//! The engine-independent suite on this engine: each check on an etcd of its own.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ironkeel_store::{Store, conformance};
use tokio::sync::Semaphore;

mod server;

use server::{Owned, Server, installed};

/// Servers that run at once.
static PLACES: Semaphore = Semaphore::const_new(4);

async fn check<F: Future<Output = ()>>(check: impl FnOnce(Arc<dyn Store>) -> F) {
    if !installed() {
        return;
    }
    let _place = PLACES.acquire().await.unwrap();
    let server = Server::start(&[]);
    let store = server.connect().await;
    check(Arc::new(Owned { store, server })).await;
}

macro_rules! test_each {
    (($each:ident) $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $each(conformance::$name).await;
            }
        )*
    };
}

ironkeel_store::conformance_checks!(test_each, check);
