//! What a store holds, not written by us: an API server reads it through encryption at rest, in every form, without a
//! panic. The first byte chooses the kind, the rest is the stored value.
#![no_main]

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use ironkeel_apiserver::{ApiServer, InProcess, UserInfo};
use ironkeel_embedded::{Embedded, Options};
use ironkeel_encryption::{Encrypted, Provider, Rule};
use ironkeel_store::{Condition, Store};
use libfuzzer_sys::fuzz_target;
use tower::ServiceExt;

const PATIENCE: Duration = Duration::from_secs(5);

/// Keys in the store and what reads them.
const PLACES: &[(&str, &str)] = &[
    ("/registry/configmaps/default/x", "/api/v1/namespaces/default/configmaps"),
    ("/registry/pods/default/x", "/api/v1/namespaces/default/pods"),
    ("/registry/secrets/default/x", "/api/v1/namespaces/default/secrets"),
    ("/registry/services/specs/default/x", "/api/v1/namespaces/default/services"),
    ("/registry/deployments/default/x", "/apis/apps/v1/namespaces/default/deployments"),
    ("/registry/roles/default/x", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"),
    ("/registry/minions/x", "/api/v1/nodes"),
];

const ACCEPT: &[&str] = &[
    "application/json",
    "application/vnd.kubernetes.protobuf",
    "application/json;as=Table;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
];

struct Fixture {
    runtime: tokio::runtime::Runtime,
    /// Beneath the encryption.
    store: Arc<Embedded>,
    service: InProcess,
    _api: ApiServer,
}

thread_local! {
    static FIXTURE: RefCell<Option<Fixture>> = const { RefCell::new(None) };
}

fn fixture() -> Fixture {
    let runtime = ironkeel_fuzz::runtime();
    let options = Options { history_revisions: 64, ..Options::default() };
    let store = Embedded::open(ironkeel_fuzz::scratch("stored"), options).expect("a store");
    let provider = Provider::aes_gcm("key", &[7; 32]).expect("a key");
    let rule = Rule { prefixes: vec![b"/registry/secrets/".to_vec()], providers: vec![Arc::new(provider)] };
    let sealed = Arc::new(Encrypted::new(store.clone(), vec![rule]));
    let api = runtime.block_on(ironkeel_fuzz::api_server(sealed));
    let service = api.in_process(UserInfo::new("admin", ["system:masters"]));
    Fixture { runtime, store, service, _api: api }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, value)) = data.split_first() else { return };
    let (key, path) = PLACES[usize::from(*first) % PLACES.len()];
    FIXTURE.with_borrow_mut(|slot| {
        let Fixture { runtime, store, service, .. } = slot.get_or_insert_with(fixture);
        runtime.block_on(async {
            let put = store.put(key.into(), Bytes::copy_from_slice(value), Condition::Always, 0);
            put.await.expect("the store takes any bytes");
            for accept in ACCEPT {
                // A list and the object itself; the second from the store, whatever the cache has seen.
                for target in [format!("{path}?resourceVersion=0"), format!("{path}/x"), path.to_owned()] {
                    let request = Request::get(target).header("accept", *accept).body(Full::<Bytes>::default());
                    let answer = service.clone().oneshot(request.expect("a request"));
                    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time");
                    let body = answer.expect("an answer").into_body().collect();
                    // A stored value that cannot be read may end a stream; that it ends is what counts.
                    let _ = tokio::time::timeout(PATIENCE, body).await.expect("a body in time");
                }
            }
            store.delete(key.into(), Condition::Always).await.expect("what was put is deleted");
        });
    });
});
