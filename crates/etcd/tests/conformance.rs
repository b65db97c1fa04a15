//! The engine-independent suite on this engine: each check on an etcd of its own.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ironkeel_etcd::Etcd;
use ironkeel_store::{Layer, Store, conformance};
use ironkeel_testkit::etcd::{Server, installed};
use tokio::sync::Semaphore;

/// Servers that run at once.
static PLACES: Semaphore = Semaphore::const_new(4);

/// A store whose server ends with it.
#[derive(Debug)]
struct Owned {
    store: Arc<Etcd>,
    _server: Server,
}

impl Layer for Owned {
    fn beneath(&self) -> &dyn Store {
        &*self.store
    }
}

async fn check<F: Future<Output = ()>>(check: impl FnOnce(Arc<dyn Store>) -> F) {
    if !installed() {
        return;
    }
    let _place = PLACES.acquire().await.unwrap();
    let server = Server::start(&[]);
    let store = server.connect().await;
    check(Arc::new(Owned { store, _server: server })).await;
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
