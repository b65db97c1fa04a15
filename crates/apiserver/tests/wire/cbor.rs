//! CBOR behind its gate: reads, writes, applies, errors, lists and watches; refused without it.

use std::sync::Arc;

use http::Method;
use http_body_util::BodyExt;
use ironkeel_codec::{decode_cbor, encode_cbor};
use ironkeel_embedded::Options;
use serde_json::{Value, json};

use super::support::{Cluster, Http, cluster, start_tuned};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const CBOR: &str = "application/cbor";

async fn gated() -> (Cluster, Http) {
    let cluster = start_tuned(Arc::new(tempfile::tempdir().unwrap()), Options::default(), |c| c.cbor = true).await;
    let http = cluster.admin();
    (cluster, http)
}

fn to_cbor(v: &Value) -> Vec<u8> {
    let tree = ironkeel_codec::parse_json(v.to_string().as_bytes()).unwrap();
    let mut out = Vec::new();
    encode_cbor(&tree, None, &mut out);
    out
}

fn from_cbor(bytes: &[u8]) -> Value {
    let (tree, _) = decode_cbor(bytes, None).unwrap();
    let mut out = Vec::new();
    ironkeel_codec::encode_json(&tree, &mut out);
    serde_json::from_slice(&out).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_come_and_go_as_cbor() {
    let (_cluster, http) = gated().await;
    let secret =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "data": { "k": "AAEC/w==" } });
    let headers = [("content-type", CBOR), ("accept", CBOR)];
    let answer = http.send(Method::POST, SECRETS, &headers, to_cbor(&secret)).await;
    assert_eq!((answer.status.as_u16(), answer.headers["content-type"].to_str().unwrap()), (201, CBOR));
    let bytes: &[u8] = &[0xd6, 0x44, 0, 1, 2, 0xff];
    assert!(answer.bytes.windows(6).any(|w| w == bytes), "bytes travel as bytes behind tag 22");
    assert_eq!(from_cbor(&answer.bytes)["data"]["k"], "AAEC/w==");
    let path = format!("{SECRETS}/s");
    assert_eq!(http.get(&path).await.expect(200)["data"]["k"], "AAEC/w==");

    let applied =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "stringData": { "more": "x" } });
    let headers =
        [("content-type", "application/apply-patch+cbor"), ("accept", "application/cbor;q=0.9,application/yaml;q=0.1")];
    let answer = http.send(Method::PATCH, &format!("{path}?fieldManager=m"), &headers, to_cbor(&applied)).await;
    assert_eq!(from_cbor(&answer.bytes)["data"]["more"], "eA==", "{:?}", answer.status);
    let list = http.send(Method::GET, SECRETS, &[("accept", CBOR)], "").await;
    assert!(list.bytes.windows(6).any(|w| w == bytes));
    assert_eq!(from_cbor(&list.bytes)["items"][0]["metadata"]["name"], "s");
    let missing = http.send(Method::GET, &format!("{SECRETS}/x"), &[("accept", CBOR)], "").await;
    assert_eq!((missing.status.as_u16(), from_cbor(&missing.bytes)["reason"].as_str().unwrap()), (404, "NotFound"));
    let bad = http.send(Method::POST, SECRETS, &[("content-type", CBOR)], vec![0xff, 0x00]).await;
    bad.refused(400, "BadRequest", "error decoding CBOR");
    let table =
        http.send(Method::GET, SECRETS, &[("accept", "application/cbor;as=Table;v=v1;g=meta.k8s.io")], "").await;
    assert_eq!(from_cbor(&table.bytes)["kind"], "Table");
    let json = http.send(Method::GET, SECRETS, &[("accept", "application/json,application/cbor;q=0.5")], "").await;
    assert_eq!(json.headers["content-type"], "application/json");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_is_a_sequence() {
    let (_cluster, http) = gated().await;
    let secret =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "data": { "k": "AAEC/w==" } });
    http.post(SECRETS, &secret).await.expect(201);
    for accept in [CBOR, "application/cbor-seq"] {
        let request = http::Request::builder().uri(format!("{SECRETS}?watch=1")).header("accept", accept);
        let response = http.raw(request.body(Default::default()).unwrap()).await;
        assert_eq!(response.headers()["content-type"], "application/cbor-seq");
        let mut body = response.into_body();
        let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let event = from_cbor(&event);
        assert_eq!((&event["type"], &event["object"]["data"]["k"]), (&json!("ADDED"), &json!("AAEC/w==")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_gate_cbor_is_refused() {
    let cluster = cluster().await;
    let http = cluster.admin();
    assert_eq!(http.send(Method::GET, SECRETS, &[("accept", CBOR)], "").await.status, 406);
    assert_eq!(http.send(Method::POST, SECRETS, &[("content-type", CBOR)], to_cbor(&json!({}))).await.status, 415);
    let apply = [("content-type", "application/apply-patch+cbor")];
    assert_eq!(
        http.send(Method::PATCH, &format!("{SECRETS}/s?fieldManager=m"), &apply, to_cbor(&json!({}))).await.status,
        415
    );
}
