//! Bodies and queries that were made to break or to cost: bombs, nesting, numbers, selectors, patches, expressions.
//! Nothing is answered 500, and nothing takes long; statuses are upstream's.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use support::{Answer, Cluster, Http, cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
/// Largest request body, in bytes, as upstream.
const BODY_LIMIT: usize = 3 << 20;
/// Time in which an unoptimized build, with others on the machine, has to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends, and holds the answer to what every answer has to keep: in time, no 500, of bounded size.
#[track_caller]
fn sane(what: &str, begun: Instant, answer: &Answer) {
    let took = begun.elapsed();
    let shown = String::from_utf8_lossy(&answer.bytes[..answer.bytes.len().min(500)]).into_owned();
    assert_ne!(answer.status, 500, "{what}: {shown}");
    assert!(took < PATIENCE, "{what} took {took:?}: {} {shown}", answer.status);
    assert!(answer.bytes.len() <= 2 * BODY_LIMIT, "{what}: the answer has {} bytes", answer.bytes.len());
    let heads: usize = answer.headers.iter().map(|(k, v)| k.as_str().len() + v.len()).sum();
    assert!(heads <= 64 << 10, "{what}: the answer's headers have {heads} bytes");
}

async fn send(http: &Http, method: Method, path: &str, kind: &str, body: impl Into<bytes::Bytes>) -> Answer {
    let begun = Instant::now();
    let what = format!("{method} {} {kind}", &path[..path.len().min(80)]);
    let answer = http.send(method, path, &[("content-type", kind)], body).await;
    sane(&what, begun, &answer);
    answer
}

#[track_caller]
fn status(answer: &Answer, code: u16, message: &str) {
    let shown = String::from_utf8_lossy(&answer.bytes[..answer.bytes.len().min(800)]).into_owned();
    assert_eq!(answer.status.as_u16(), code, "{shown}");
    assert!(shown.contains(message), "{shown:?} does not contain {message:?}");
}

async fn prepared() -> (Cluster, Http) {
    let c = cluster().await;
    let http = c.admin();
    http.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}))
        .await
        .expect(201);
    http.post(MAPS, &json!({"metadata": {"name": "m"}, "data": {"k": "v"}})).await.expect(201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    http.post(PODS, &pod).await.expect(201);
    (c, http)
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_nesting_is_refused_in_every_encoding() {
    let (_c, http) = prepared().await;
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    for n in [401, 10_001, 500_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let inner =
                if open == "[" { deep(open, close, n) } else { format!("{}1{}", open.repeat(n), close.repeat(n)) };
            let body = format!(r#"{{"metadata":{{"name":"x"}},"data":{inner}}}"#);
            if body.len() > BODY_LIMIT {
                continue;
            }
            for kind in [JSON, YAML] {
                status(&send(&http, Method::POST, MAPS, kind, body.clone()).await, 400, "");
            }
            for kind in [MERGE_PATCH, STRATEGIC, APPLY] {
                status(
                    &send(&http, Method::PATCH, &format!("{MAPS}/m?fieldManager=x"), kind, body.clone()).await,
                    400,
                    "",
                );
            }
            let patch = format!(r#"[{{"op":"add","path":"/data","value":{inner}}}]"#);
            status(&send(&http, Method::PATCH, &format!("{MAPS}/m"), JSON_PATCH, patch).await, 400, "");
        }
    }
    // A message in a message in a message: JSON in protobuf has no such limit of its own.
    let mut message = Vec::new();
    for _ in 0..20_000 {
        message.splice(0..0, [0x0a, 0x80, 0x80, 0x04]);
    }
    let mut body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x80\x80\x08".to_vec();
    body.append(&mut message);
    status(&send(&http, Method::POST, MAPS, PROTOBUF, body).await, 400, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_texts_and_members_are_read_as_upstream_reads_them() {
    let (_c, http) = prepared().await;
    let create = async |path: &str, body: &[u8]| send(&http, Method::POST, path, JSON, body.to_vec()).await;
    for number in ["1e400", "-1e400", "9999999999999999999999999", "1e1000000", &"9".repeat(1_000_000)] {
        let body = format!(r#"{{"metadata":{{"name":"n","generation":{number}}}}}"#);
        status(&create(MAPS, body.as_bytes()).await, 400, "");
        let body = format!(
            r#"{{"metadata":{{"name":"n"}},"spec":{{"containers":[{{"name":"c","image":"i","resources":{{"limits":{{"cpu":{number}}}}}}}]}}}}"#
        );
        let answer = create(PODS, body.as_bytes()).await;
        assert!(matches!(answer.status.as_u16(), 201 | 400 | 422), "{number:.20}: {}", answer.status);
        let _ = http.delete(&format!("{PODS}/n?gracePeriodSeconds=0")).await;
    }
    for quantity in
        ["1e1000000", "-1e1000000", "1e-1000000", "0x10", "1e2147483648", &"1".repeat(1_000_000), "1.", "E", "1Ee"]
    {
        let body = json!({"metadata": {"name": "q"}, "spec": {"containers": [
            {"name": "c", "image": "i", "resources": {"limits": {"memory": quantity}}}]}});
        let answer = create(PODS, body.to_string().as_bytes()).await;
        assert!(matches!(answer.status.as_u16(), 201 | 400 | 422), "{quantity:.20}: {}", answer.status);
        let _ = http.delete(&format!("{PODS}/q?gracePeriodSeconds=0")).await;
    }
    // Go's decoder puts U+FFFD in the place of what is no UTF-8; whoever is stricter says 400.
    for bytes in [&b"\xff\xfe"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\0"] {
        let mut body = br#"{"metadata":{"name":"u"},"data":{"k":""#.to_vec();
        body.extend_from_slice(bytes);
        body.extend_from_slice(br#""}}"#);
        for kind in [JSON, YAML, PROTOBUF, "application/cbor"] {
            let answer = send(&http, Method::POST, &format!("{MAPS}?dryRun=All"), kind, body.clone()).await;
            assert!(matches!(answer.status.as_u16(), 201 | 400 | 415), "{bytes:?}: {}", answer.status);
        }
    }
    let escaped = r#"{"metadata":{"name":"s"},"data":{"k":"\ud800"}}"#;
    assert!(matches!(create(&format!("{MAPS}?dryRun=All"), escaped.as_bytes()).await.status.as_u16(), 201 | 400));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_problems_are_told_in_bounds() {
    let (_c, http) = prepared().await;
    // Upstream tells of a hundred; each names the path to it, so a long name above many would be gigabytes.
    let long = "n".repeat(500_000);
    let twice: String = (0..100_000).map(|i| format!(r#","a{i}":1,"a{i}":2"#)).collect();
    let bodies = [
        format!(r#"{{"metadata":{{"name":"t"}}{twice}}}"#),
        format!(r#"{{"metadata":{{"name":"t","{long}":{{"x":1{twice}}}}}}}"#),
        format!(
            r#"{{"metadata":{{"name":"t"}},"data":{{"{long}":"","k":""{}}}}}"#,
            twice.replace(":1", ":\"\"").replace(":2", ":\"\"")
        ),
    ];
    for body in bodies {
        for validation in ["Strict", "Warn", "Ignore"] {
            for kind in [JSON, YAML] {
                let path = format!("{MAPS}?dryRun=All&fieldValidation={validation}");
                let answer = send(&http, Method::POST, &path, kind, body.clone()).await;
                assert!(matches!(answer.status.as_u16(), 201 | 400 | 413 | 422), "{validation}: {}", answer.status);
                assert!(answer.bytes.len() < 2 << 20, "{validation} {kind}: {} bytes", answer.bytes.len());
            }
        }
    }
    // As many errors of validation as fit.
    let keys: serde_json::Map<String, Value> = (0..6_000).map(|i| (format!("-bad key {i}"), "x".into())).collect();
    let answer =
        send(&http, Method::POST, MAPS, JSON, json!({"metadata": {"name": "e"}, "data": keys}).to_string()).await;
    status(&answer, 422, "Invalid");
    let ports: Vec<Value> = (0..6_000).map(|i| json!({"name": "same", "port": i % 7})).collect();
    let service = json!({"metadata": {"name": "e"}, "spec": {"ports": ports}});
    status(&send(&http, Method::POST, "/api/v1/namespaces/default/services", JSON, service.to_string()).await, 422, "");
    let names: Vec<Value> = (0..8_000).map(|i| json!({"name": format!("c{}", i / 2), "image": "i"})).collect();
    let pod = json!({"metadata": {"name": "e"}, "spec": {"containers": names}});
    status(&send(&http, Method::POST, PODS, JSON, pod.to_string()).await, 422, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_do_not_go_off() {
    let (_c, http) = prepared().await;
    let mut laughs = String::from("metadata: {name: b}\ndata:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..10 {
        let below = vec![format!("*a{}", i - 1); 10].join(", ");
        writeln!(laughs, "  a{i}: &a{i} [{below}]").unwrap();
    }
    status(&send(&http, Method::POST, MAPS, YAML, laughs.clone()).await, 400, "");
    status(&send(&http, Method::PATCH, &format!("{MAPS}/m?fieldManager=x"), APPLY, laughs).await, 400, "");
    let mut quadratic = format!("metadata: {{name: b}}\ndata:\n  a: &a {}\n", "x".repeat(200_000));
    (0..100_000).for_each(|i| writeln!(quadratic, "  b{i}: *a").unwrap());
    status(&send(&http, Method::POST, MAPS, YAML, quadratic).await, 400, "");
    // What says that it is compressed is not unpacked: upstream reads the bytes as they are.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![b' '; 64 << 20]).unwrap();
    let headers = [("content-type", JSON), ("content-encoding", "gzip")];
    let begun = Instant::now();
    let answer = http.send(Method::POST, MAPS, &headers, packed.finish().unwrap()).await;
    sane("gzip", begun, &answer);
    status(&answer, 400, "");
    for kind in [JSON, YAML, PROTOBUF] {
        let answer = send(&http, Method::POST, MAPS, kind, vec![b' '; BODY_LIMIT + 1]).await;
        status(&answer, 413, "Request entity too large: limit is 3145728");
        // A YAML text without anything in it is an object without anything in it.
        let code = if kind == YAML { 422 } else { 400 };
        let answer = send(&http, Method::POST, MAPS, kind, vec![b' '; BODY_LIMIT]).await;
        status(&answer, code, "");
    }
    status(&send(&http, Method::PATCH, &format!("{MAPS}/m"), MERGE_PATCH, vec![b' '; BODY_LIMIT + 1]).await, 413, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_do_not_amplify() {
    let (_c, http) = prepared().await;
    let one = format!("{MAPS}/m");
    // CVE-2019-1002100: upstream's limit and words.
    let operations = vec![json!({"op": "add", "path": "/data/x", "value": "y"}); 10_001];
    let answer = send(&http, Method::PATCH, &one, JSON_PATCH, Value::Array(operations.clone()).to_string()).await;
    status(&answer, 413, "The allowed maximum operations in a JSON patch is 10000, got 10001");
    send(&http, Method::PATCH, &one, JSON_PATCH, Value::Array(operations[1..].to_vec()).to_string()).await.expect(200);
    // Each copies all that was copied before.
    let doubling: Vec<Value> = (0..60)
        .map(|i| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/annotations{i}")}))
        .collect();
    let answer = send(&http, Method::PATCH, &one, JSON_PATCH, Value::Array(doubling).to_string()).await;
    status(&answer, 422, "the server rejected our request due to an error in our request");
    let back =
        [json!({"op": "move", "from": "/data", "path": "/x"}), json!({"op": "move", "from": "/x", "path": "/data"})];
    let moves: Vec<Value> = back.iter().cycle().take(10_000).cloned().collect();
    send(&http, Method::PATCH, &one, JSON_PATCH, Value::Array(moves).to_string()).await.expect(200);
    for path in ["", "/", "//", "/data/~2", "/data/-", "/-1", "/metadata/name/x", &format!("/{}", "a/".repeat(500_000))]
    {
        for op in ["add", "remove", "replace", "test", "copy", "move", "x", ""] {
            let patch = json!([{"op": op, "path": path, "from": path, "value": {"a": []}}]);
            let answer = send(&http, Method::PATCH, &format!("{one}?dryRun=All"), JSON_PATCH, patch.to_string()).await;
            assert!(matches!(answer.status.as_u16(), 200 | 400 | 409 | 422), "{op} {path:.20}: {}", answer.status);
        }
    }
    let many: serde_json::Map<String, Value> = (0..100_000).map(|i| (format!("k{i}"), "".into())).collect();
    let answer = send(&http, Method::PATCH, &one, MERGE_PATCH, json!({ "data": many }).to_string()).await;
    assert!(matches!(answer.status.as_u16(), 200 | 413 | 422), "{}", answer.status);
    let containers: Vec<Value> = (0..8_000).map(|i| json!({"name": format!("c{i}")})).collect();
    let patch = json!({"spec": {"containers": containers, "$setElementOrder/containers": containers}});
    for kind in [STRATEGIC, MERGE_PATCH] {
        let answer = send(&http, Method::PATCH, &format!("{PODS}/p"), kind, patch.to_string()).await;
        assert!(matches!(answer.status.as_u16(), 413 | 422), "{kind}: {}", answer.status);
    }
    let config = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": containers}});
    let answer = send(&http, Method::PATCH, &format!("{PODS}/p?fieldManager=x"), APPLY, config.to_string()).await;
    assert!(matches!(answer.status.as_u16(), 413 | 422), "{}", answer.status);
    // Managers by the thousand, sent by the client itself.
    let entry = |i: usize| {
        json!({"manager": format!("m{i}"), "operation": "Update", "apiVersion": format!("v{i}"), "fieldsType": "FieldsV1",
            "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:data": {format!("f:{i}"): {}}}})
    };
    let entries: Vec<Value> = (0..15_000).map(entry).collect();
    let patch = json!({"metadata": {"managedFields": entries}});
    let answer = send(&http, Method::PATCH, &one, MERGE_PATCH, patch.to_string()).await;
    assert!(matches!(answer.status.as_u16(), 200 | 413 | 422), "{}", answer.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_and_queries_of_any_length_are_answered() {
    let (_c, http) = prepared().await;
    let list = async |query: &str| {
        let begun = Instant::now();
        let answer = http.get(&format!("{PODS}?{query}")).await;
        sane(&query[..query.len().min(60)], begun, &answer);
        answer
    };
    let values: String = (0..8_000).map(|i| format!("v{i},")).collect();
    list(&format!("labelSelector=a+in+({values}x)")).await.expect(200);
    let terms: String = (0..5_000).map(|i| format!("k{i}!=v,")).collect();
    list(&format!("labelSelector={terms}x")).await.expect(200);
    let fields: String = (0..2_000).map(|i| format!("metadata.name!=p{i},")).collect();
    list(&format!("fieldSelector={fields}metadata.name!=x")).await.expect(200);
    for bad in [
        "(",
        "a+in+(",
        "((((((((",
        "a+in+((b))",
        ",,,,",
        "a%00b",
        "%ff%fe",
        "a=b=c",
        "!!a",
        "a+notin",
        &"(".repeat(60_000),
    ] {
        let answer = list(&format!("labelSelector={bad}")).await;
        assert_eq!(answer.status, 400, "{bad:.20}");
        let answer = list(&format!("fieldSelector={bad}")).await;
        assert!(matches!(answer.status.as_u16(), 200 | 400), "{bad:.20}: {}", answer.status);
    }
    for query in [
        "limit=-1",
        "limit=99999999999999999999",
        "limit=x",
        "limit=1&limit=2",
        "resourceVersion=-1",
        "resourceVersion=x",
        "resourceVersion=99999999999999999999",
        "timeoutSeconds=-1",
        "resourceVersionMatch=x",
        "continue=x",
        "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiLi4vLi4vc2VjcmV0cyJ9",
        "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OTIyMzM3MjAzNjg1NDc3NTgwNywic3RhcnQiOiJhIn0",
        "watch=true&timeoutSeconds=0&resourceVersion=x",
        "pretty=%ff",
        "&&&&==",
        "%",
        "%zz=%",
        "fieldManager=%00",
        "dryRun=x",
        "fieldValidation=x",
        "labelSelector",
        "=",
    ] {
        let answer = list(query).await;
        assert!(matches!(answer.status.as_u16(), 200 | 400 | 410 | 422 | 504), "{query}: {}", answer.status);
    }
    let many: String = (0..7_000).map(|i| format!("a{i}=b&")).collect();
    list(&many).await.expect(200);
    let exec: String = (0..3_000).map(|i| format!("command=c{i}&")).collect();
    let begun = Instant::now();
    let answer = http.send(Method::POST, &format!("{PODS}/p/exec?{exec}stdin=true"), &[], "").await;
    sane("exec", begun, &answer);
    assert_eq!(answer.status, 400);
}

fn crd(schema: Value) -> Value {
    json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_and_schemas_are_bounded_before_they_run() {
    let (_c, http) = prepared().await;
    let rules = [
        // Three loops over lists without a bound: upstream's estimate is far over its limit.
        "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c != 'x')))".to_owned(),
        format!("{}true{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("{}1 == 1", "!".repeat(50_000)),
        vec!["1"; 40_000].join("+") + " == 1",
        format!("[{}].size() == 0", vec!["[]"; 30_000].join(",")),
        format!("'{}' == ''", "x".repeat(200_000)),
        "self.s.matches('((((((((((a{100}){100}){100}){100}){100}){100}){100}){100}){100}){100})')".to_owned(),
        "self.s.matches('".to_owned() + &"(".repeat(10_000) + "')",
        "[1,2,3].map(a, [1,2,3].map(b, [1,2,3].map(c, [1,2,3].map(d, [1,2,3].map(e, a*b*c*d*e))))).size() > 0 && self.l.all(x, self.l.all(y, x == y))"
            .to_owned(),
    ];
    let unbounded = json!({"type": "object", "x-kubernetes-validations": [{"rule": rules[0]}], "properties": {
        "l": {"type": "array", "items": {"type": "string"}}}});
    let answer = send(&http, Method::POST, CRDS, JSON, crd(unbounded).to_string()).await;
    status(&answer, 422, "estimated rule cost exceeds budget");
    for rule in rules {
        let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
            "l": {"type": "array", "items": {"type": "string"}}, "s": {"type": "string"}}});
        let answer = send(&http, Method::POST, &format!("{CRDS}?dryRun=All"), JSON, crd(schema).to_string()).await;
        assert!(matches!(answer.status.as_u16(), 201 | 422), "{rule:.60}: {}", answer.status);
        let policy = json!({"metadata": {"name": "x"}, "spec": {"validations": [{"expression": rule}],
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["pods"]}]}}});
        let answer = send(&http, Method::POST, &format!("{POLICIES}?dryRun=All"), JSON, policy.to_string()).await;
        assert!(matches!(answer.status.as_u16(), 201 | 422), "{rule:.60}: {}", answer.status);
    }
    let mut deep = json!({"type": "string"});
    for _ in 0..150 {
        deep = json!({"type": "object", "properties": {"p": deep}});
    }
    let answer = send(&http, Method::POST, &format!("{CRDS}?dryRun=All"), JSON, crd(deep).to_string()).await;
    assert!(matches!(answer.status.as_u16(), 201 | 400 | 422), "{}", answer.status);
    for pattern in
        ["((a{1000}){1000}){1000}", "(((((((((((", "(?P<n>a)(?P<n>b)", &"a?".repeat(50_000), "[[:foo:]]", "\\p{Foo}"]
    {
        let schema = json!({"type": "object", "properties": {"s": {"type": "string", "pattern": pattern}}});
        let answer = send(&http, Method::POST, &format!("{CRDS}?dryRun=All"), JSON, crd(schema).to_string()).await;
        assert!(matches!(answer.status.as_u16(), 201 | 422), "{pattern:.40}: {}", answer.status);
    }
    // An expensive rule of a policy is stopped at run time, and judged by the policy's failurePolicy.
    let expensive = "object.metadata.annotations.all(a, object.metadata.annotations.all(b, \
                     object.metadata.annotations.all(c, a + b + c != '')))";
    let policy = json!({"metadata": {"name": "slow"}, "spec": {"failurePolicy": "Fail",
        "validations": [{"expression": expensive}], "matchConstraints": {"resourceRules": [{"apiGroups": [""],
        "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}}});
    http.post(POLICIES, &policy).await.expect(201);
    let binding = json!({"metadata": {"name": "slow"}, "spec": {"policyName": "slow", "validationActions": ["Deny"]}});
    http.post("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", &binding).await.expect(201);
    let annotations: serde_json::Map<String, Value> = (0..5_000).map(|i| (format!("a{i}"), "x".into())).collect();
    let body = json!({"metadata": {"name": "z", "annotations": annotations}});
    let answer = send(&http, Method::POST, MAPS, JSON, body.to_string()).await;
    status(&answer, 422, "");
    assert!(String::from_utf8_lossy(&answer.bytes).contains("cost"), "{}", String::from_utf8_lossy(&answer.bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_lead_nowhere_else() {
    let (c, http) = prepared().await;
    http.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await.expect(201);
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "hidden"}});
    http.post("/api/v1/namespaces/other/secrets", &secret).await.expect(201);
    for path in [
        "/api/v1/secrets/other%2fs",
        "/api/v1/secrets/other/s",
        "/api/v1/namespaces/default/secrets/..%2fother%2fs",
        "/api/v1/namespaces/default/secrets/../../other/secrets/s",
        "/api/v1/namespaces/default%2f..%2fother/secrets/s",
        "/api/v1/namespaces/default/secrets/%2e%2e/%2e%2e/other/secrets/s",
        "/api/v1/namespaces//secrets/other%2fs",
        "/api/v1//namespaces/other/secrets/s",
        "/api/v1/namespaces/other/secrets/s%00",
        "/api/v1/namespaces/other/secrets/s;a=b",
        "/api/v1/namespaces/other/secrets/s%20",
        "/API/v1/namespaces/other/secrets/s",
        "/api/v1/namespaces/other/secrets/%73%252f",
        "/./api/v1/namespaces/other/secrets/s",
        "/api/v1/namespaces/other/secrets/s/status/x/y/z",
        "/api/v1/namespaces/other/secrets/%ff",
        "/apis/v1/namespaces/other/secrets/s",
    ] {
        let begun = Instant::now();
        let answer = http.get(path).await;
        sane(path, begun, &answer);
        assert!(!String::from_utf8_lossy(&answer.bytes).contains("aGlkZGVu"), "{path} shows the secret");
        assert!(matches!(answer.status.as_u16(), 301 | 400 | 404), "{path}: {}", answer.status);
        // Whoever may do nothing learns nothing.
        let eve = c.as_user("eve", &["system:authenticated"]).get(path).await;
        assert!(matches!(eve.status.as_u16(), 301 | 400 | 403 | 404), "{path}: {}", eve.status);
        for method in [Method::PUT, Method::PATCH, Method::DELETE, Method::POST] {
            let answer = send(&http, method.clone(), path, MERGE_PATCH, "{}").await;
            assert!(answer.status.is_client_error(), "{method} {path}: {}", answer.status);
        }
    }
    // What is written in another way is the same name, and is seen as it.
    http.get("/api/v1/namespaces/other/secrets/%73").await.expect(200);
    http.get("/api/v1/namespaces/other/secrets/s").await.expect(200);
    for name in ["a/b", "..", ".", "a%b", "a\0b", "A", "", &"a".repeat(254), "é"] {
        let answer = send(&http, Method::POST, MAPS, JSON, json!({"metadata": {"name": name}}).to_string()).await;
        assert_eq!(answer.status, 422, "{name:?}");
    }
}
