//! A whole API server, from the request's head to its answer: nothing panics, and nothing that a client says is
//! answered 500.
//!
//! An input reads like HTTP/1: a line with method and target, headers, an empty line, the body. `continue: TEXT` is
//! not a header but a continue token to be encoded. Every write is a dry run, so that inputs do not depend on each
//! other.
#![no_main]

use std::cell::RefCell;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use ironkeel_apiserver::{ApiServer, InProcess, UserInfo};
use ironkeel_embedded::{Embedded, Options};
use libfuzzer_sys::{Corpus, fuzz_target};
use tower::ServiceExt;

/// What an answer may take. Watches and their like are left after their head.
const PATIENCE: Duration = Duration::from_secs(5);

const OBJECTS: &[(&str, &str)] = &[
    ("/api/v1/namespaces/default/serviceaccounts", r#"{"metadata":{"name":"default"}}"#),
    ("/api/v1/namespaces/default/configmaps", r#"{"metadata":{"name":"m","labels":{"a":"b"}},"data":{"k":"v"}}"#),
    ("/api/v1/namespaces/default/configmaps", r#"{"metadata":{"name":"n"},"data":{"k":"v"}}"#),
    ("/api/v1/namespaces/default/services", r#"{"metadata":{"name":"s"},"spec":{"ports":[{"port":80}]}}"#),
    (
        "/api/v1/namespaces/default/pods",
        r#"{"metadata":{"name":"p","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}"#,
    ),
    (
        "/apis/apps/v1/namespaces/default/deployments",
        r#"{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
    ),
    (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        r#"{"metadata":{"name":"widgets.example.com"},"spec":{"group":"example.com","scope":"Namespaced",
        "names":{"plural":"widgets","singular":"widget","kind":"Widget","listKind":"WidgetList"},
        "versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{},
        "scale":{"specReplicasPath":".spec.n","statusReplicasPath":".status.n","labelSelectorPath":".status.l"}},
        "additionalPrinterColumns":[{"name":"N","type":"integer","jsonPath":".spec.n"}],"selectableFields":[{"jsonPath":".spec.c"}],
        "schema":{"openAPIV3Schema":{"type":"object","properties":{
        "spec":{"type":"object","x-kubernetes-validations":[{"rule":"!has(self.n) || self.n >= 0"}],"properties":{
        "n":{"type":"integer","default":1,"maximum":1000},"c":{"type":"string","pattern":"^[a-z]*$"},
        "l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],
        "items":{"type":"object","required":["k"],"properties":{"k":{"type":"string"}}}},
        "s":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
        "f":{"type":"object","x-kubernetes-preserve-unknown-fields":true},"q":{"x-kubernetes-int-or-string":true},
        "t":{"type":"string","format":"date-time"}}},
        "status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}]}}"#,
    ),
];

struct Fixture {
    runtime: tokio::runtime::Runtime,
    service: InProcess,
    _api: ApiServer,
}

thread_local! {
    static FIXTURE: RefCell<Option<Fixture>> = const { RefCell::new(None) };
}

fn fixture() -> Fixture {
    let runtime = ironkeel_fuzz::runtime();
    let store = Embedded::open(ironkeel_fuzz::scratch("requests"), Options::default()).expect("a store");
    let api = runtime.block_on(ironkeel_fuzz::api_server(store));
    let service = api.in_process(UserInfo::new("admin", ["system:masters"]));
    runtime.block_on(async {
        for (path, body) in OBJECTS {
            let request = Request::post(*path).header("content-type", "application/json");
            let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("a request");
            let (status, answer) = answer(&service, request).await;
            assert_eq!(status, StatusCode::CREATED, "{path}: {}", String::from_utf8_lossy(&answer));
        }
        let mine = "/apis/example.com/v1/namespaces/default/widgets";
        let body = r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"n":1,"c":"x"}}"#;
        // The definition is served a moment after it was written.
        for _ in 0..1_000 {
            let request = Request::post(mine).header("content-type", "application/json");
            let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("a request");
            if answer(&service, request).await.0 == StatusCode::CREATED {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the custom resource is not served");
    });
    Fixture { runtime, service, _api: api }
}

async fn answer(service: &InProcess, request: Request<Full<Bytes>>) -> (StatusCode, Vec<u8>) {
    let long = request.uri().query().is_some_and(|q| q.contains("watch") || q.contains("follow"))
        || request.uri().path().contains("watch");
    let response = tokio::time::timeout(PATIENCE, service.clone().oneshot(request)).await;
    let response = response.expect("an answer in time").expect("an answer");
    let (parts, mut body) = response.into_parts();
    let mut out = Vec::new();
    if !long {
        while let Some(frame) = tokio::time::timeout(PATIENCE, body.frame()).await.expect("a body in time") {
            match frame.expect("a body").into_data() {
                Ok(data) => out.extend_from_slice(&data),
                Err(_) => break,
            }
        }
    }
    (parts.status, out)
}

/// The request of an input; none for what HTTP would not carry.
fn request(data: &[u8]) -> Option<Request<Full<Bytes>>> {
    let end = data.windows(2).position(|w| w == b"\n\n").unwrap_or(data.len());
    let (head, body) = (std::str::from_utf8(&data[..end]).ok()?, data.get(end + 2..).unwrap_or_default());
    let mut lines = head.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    let mut target = target.to_owned();
    if !target.starts_with('/') {
        return None;
    }
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let (name, value) = (name.trim(), value.trim());
        if name == "continue" {
            target.push_str(if target.contains('?') { "&continue=" } else { "?continue=" });
            URL_SAFE_NO_PAD.encode_string(value, &mut target);
            continue;
        }
        headers.push((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?));
    }
    if !matches!(method, Method::GET | Method::HEAD | Method::OPTIONS) {
        target.push_str(if target.contains('?') { "&dryRun=All" } else { "?dryRun=All" });
    }
    let uri: Uri = target.parse().ok()?;
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body))).ok()
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(request) = request(data) else { return Corpus::Reject };
    FIXTURE.with_borrow_mut(|fixture_slot| {
        let Fixture { runtime, service, .. } = fixture_slot.get_or_insert_with(fixture);
        let (status, body) = runtime.block_on(answer(service, request));
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{}", String::from_utf8_lossy(&body));
    });
    Corpus::Keep
});
