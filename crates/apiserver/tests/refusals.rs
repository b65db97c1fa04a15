//! Clients' mistakes and the words that they are answered with, which are upstream's; where upstream says them under
//! 500, here they come under 400.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{Answer, Http, cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const FOOS: &str = "/apis/ex.io/v1/namespaces/default/foos";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn check(answer: &Answer, code: u16, words: &str) {
    let found = message(answer);
    assert_eq!((answer.status.as_u16(), found.contains(words)), (code, true), "{found:?} is not {words:?}");
}

async fn delete(http: &Http, path: &str, body: &str) -> Answer {
    http.send(Method::DELETE, path, JSON, body.to_owned()).await
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

async fn foos(http: &Http) {
    let definition = json!({"metadata": {"name": "foos.ex.io"}, "spec": {"group": "ex.io", "scope": "Namespaced",
        "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"n": {"type": "integer"}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    http.post(definitions, &definition).await.expect(201);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while http.get(FOOS).await.status != 200 {
        assert!(std::time::Instant::now() < deadline, "the definition is not served");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_changed_under_the_uid_that_it_has() {
    let c = cluster().await;
    let http = c.admin();
    let made = http.post(MAPS, &map("m")).await.expect(201);
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let path = format!("{MAPS}/m");
    let mut other = map("m");
    other["metadata"]["uid"] = "x".into();
    check(
        &http.put(&path, &other).await,
        409,
        &format!(
            "Operation cannot be fulfilled on configmaps \"m\": StorageError: invalid object, Code: 4, Key: \
             /registry/configmaps/default/m, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in \
             precondition: x, UID in object meta: {uid}"
        ),
    );
    let renamed = json!({"metadata": {"uid": "x"}});
    let immutable = "ConfigMap \"m\" is invalid: metadata.uid: Invalid value: \"x\": field is immutable";
    for kind in [MERGE, STRATEGIC] {
        check(&http.patch(&path, kind, &renamed).await, 422, immutable);
        let number = http.patch(&path, kind, &json!({"metadata": {"uid": 5}})).await;
        check(&number, 422, "types.UID");
    }
    // Nobody keeps what a name was generated from.
    let generated = json!({"metadata": {"generateName": "m-"}});
    http.patch(&path, MERGE, &generated).await.expect(200);
    let dropped = http.patch(&path, MERGE, &json!({"metadata": {"generateName": null}})).await.expect(200);
    assert!(dropped["metadata"]["generateName"].is_null(), "{dropped}");
    check(&http.patch(&format!("{path}?fieldManager=me"), APPLY, &other).await, 422, immutable);
    // No uid at all is the one that there is.
    for nothing in [Value::Null, "".into()] {
        let same = http.patch(&path, MERGE, &json!({"metadata": {"uid": nothing}})).await.expect(200);
        assert_eq!(same["metadata"]["uid"], uid);
    }
    let garbage = json!({"metadata": {"resourceVersion": "x"}});
    check(&http.patch(&path, MERGE, &garbage).await, 400, "strconv.ParseUint: parsing \"x\": invalid syntax");
    let elsewhere = json!({"metadata": {"name": "m", "namespace": "other"}});
    let why = "the namespace of the provided object does not match the namespace sent on the request";
    check(&http.put(&path, &elsewhere).await, 400, why);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_of_an_object_is_checked_on_create() {
    let c = cluster().await;
    let http = c.admin();
    let with = |meta: Value| {
        let mut map = map("g");
        map["metadata"].as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
        map
    };
    check(
        &http.post(MAPS, &with(json!({"generation": -1}))).await,
        422,
        "ConfigMap \"g\" is invalid: metadata.generation: Invalid value: -1: must be greater than or equal to 0",
    );
    let entry = |more: Value| {
        let mut entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": "2020-01-01T00:00:00Z", "fieldsV1": {"f:data": {"f:other": {}}}});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"managedFields": [entry]})
    };
    for (more, why) in [
        (json!({"manager": "m".repeat(129)}), "metadata.managedFields[0].manager: Too long: may not be more than 128"),
        (json!({"manager": "a\nb"}), "metadata.managedFields[0].manager: Invalid value: \"a\\nb\": invalid character"),
        (json!({"subresource": "s".repeat(257)}), "metadata.managedFields[0].subresource: Too long: may not be more"),
    ] {
        check(&http.post(MAPS, &with(entry(more))).await, 422, why);
    }
    for nothing in ["", "---\n", "~", "# only words\n"] {
        let answer = http.send(Method::POST, MAPS, &[("content-type", "application/yaml")], nothing).await;
        check(
            &answer,
            422,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        );
    }
    // Field sets that nobody can read are as good as none.
    let made = http.post(MAPS, &with(entry(json!({"fieldsV1": {"x": {}}})))).await.expect(201);
    let managers: Vec<&Value> =
        made["metadata"]["managedFields"].as_array().into_iter().flatten().map(|e| &e["manager"]).collect();
    assert!(!managers.contains(&&json!("m")), "{made}");
    http.delete(&format!("{MAPS}/g")).await.expect(200);
    // What is no version is none; nor does a kind without a generation care for one.
    let made = http.post(MAPS, &with(json!({"resourceVersion": "x", "generation": 5}))).await.expect(201);
    assert_eq!(made["metadata"]["generation"], 5);
    let pod = json!({"metadata": {"name": "p", "generation": 5}, "spec": {"automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "i"}]}});
    let account = json!({"metadata": {"name": "default"}});
    http.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    assert_eq!(http.post(PODS, &pod).await.expect(201)["metadata"]["generation"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletes_options_are_its_bodys_or_else_its_querys() {
    let c = cluster().await;
    let http = c.admin();
    http.post(MAPS, &map("m")).await.expect(201);
    let path = format!("{MAPS}/m");
    let unsupported = |policy: &str| {
        format!(
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"{policy}\": supported \
             values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
        )
    };
    let both = "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"Orphan\": \
                orphanDependents and deletionPropagation cannot be both set";
    let twice = "DeleteOptions.meta.k8s.io \"\" is invalid: [propagationPolicy: Unsupported value: \"x\": supported \
                 values: \"Foreground\", \"Background\", \"Orphan\", \"nil\", dryRun: Unsupported value: [\"y\"]: \
                 supported values: \"All\"]";
    for (query, body, code, words) in [
        ("?propagationPolicy=", "", 422, unsupported("").as_str()),
        ("?propagationPolicy=x", "", 422, &unsupported("x")),
        ("", r#"{"propagationPolicy":""}"#, 422, &unsupported("")),
        ("?orphanDependents=true&propagationPolicy=Orphan", "", 422, both),
        ("", r#"{"orphanDependents":true,"propagationPolicy":"Orphan"}"#, 422, both),
        ("?propagationPolicy=x&dryRun=y", "", 422, twice),
        ("", r#"{"propagationPolicy":"x","dryRun":["y"]}"#, 422, twice),
        ("?gracePeriodSeconds=", "", 400, "strconv.ParseInt: parsing \"\": invalid syntax"),
        ("?gracePeriodSeconds=1.5", "", 400, "strconv.ParseInt: parsing \"1.5\": invalid syntax"),
        ("?gracePeriodSeconds=99999999999999999999", "", 400, "99999999999999999999\": value out of range"),
        ("", r#"{"gracePeriodSeconds":"5"}"#, 400, "json: cannot unmarshal string into Go struct field DeleteOptions"),
        ("", "x", 400, "couldn't get version/kind; json parse error: invalid character 'x' looking for"),
        ("", r#"{"preconditions":{"uid":"x"}}"#, 409, "the UID in the precondition (x) does not match the UID in"),
    ] {
        let answer = delete(&http, &format!("{path}{query}"), body).await;
        check(&answer, code, words);
        assert!(!message(&answer).contains("unrecognized"), "{}", message(&answer));
    }
    let answer = delete(&http, &format!("{path}?propagationPolicy=x"), "").await.json();
    assert_eq!(answer["details"]["causes"][0]["reason"], "FieldValueNotSupported");
    // With a body, the query says nothing.
    let gone = delete(&http, &format!("{path}?dryRun=x&propagationPolicy=x"), "{}").await.expect(200);
    assert_eq!(gone["status"], "Success");
    http.get(&path).await.refused(404, "NotFound", "not found");
    // A flag without a value is set.
    http.post(MAPS, &map("m")).await.expect(201);
    let going = delete(&http, &format!("{path}?orphanDependents="), "").await.expect(200);
    assert_eq!(going["metadata"]["finalizers"], json!(["orphan"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_resource_says_what_it_is() {
    let c = cluster().await;
    let http = c.admin();
    foos(&http).await;
    let foo = |name: &str| json!({"apiVersion": "ex.io/v1", "kind": "Foo", "metadata": {"name": name}});
    http.post(FOOS, &foo("f")).await.expect(201);
    let of = |why: &str| format!("the object provided is unrecognized (must be of type Foo): {why}");
    let unread = "couldn't get version/kind; json parse error: ";
    for (body, code, words) in [
        (r#"{"metadata":{"name":"g"}}"#, 400, of("Object 'Kind' is missing in '{\"metadata\":{\"name\":\"g\"}}'")),
        (r#"{"apiVersion":"ex.io/v1"}"#, 400, of("Object 'Kind' is missing in ")),
        ("null", 400, of("Object 'Kind' is missing in 'null' (6e756c6c)")),
        ("", 400, of(&format!("{unread}unexpected end of JSON input (<empty>)"))),
        ("[]", 400, of(&format!("{unread}json: cannot unmarshal array into Go value of type struct"))),
        ("a: b", 400, of(&format!("{unread}invalid character 'a' looking for beginning of value (613a2062)"))),
        (
            r#"{"apiVersion":5,"kind":"Foo"}"#,
            400,
            of(&format!("{unread}json: cannot unmarshal number into Go struct field .apiVersion of type string")),
        ),
        (r#"{"apiVersion":"a/b/c","kind":"Foo"}"#, 400, of("unexpected GroupVersion string: a/b/c")),
        (
            r#"{"kind":"Foo","metadata":{"name":"g"}}"#,
            400,
            "the API version in the data () does not match the expected API version (ex.io/v1)".to_owned(),
        ),
        (
            r#"{"apiVersion":"ex.io/v1","kind":"Bar","metadata":{"name":"g"}}"#,
            422,
            "Bar.ex.io \"g\" is invalid: kind: Invalid value: \"Bar\": must be Foo".to_owned(),
        ),
        (
            r#"{"apiVersion":"ex.io/v1","kind":"Foo","metadata":5}"#,
            400,
            "as a Foo: json: cannot unmarshal number into Go value of type v1.ObjectMeta".to_owned(),
        ),
        (
            r#"{"apiVersion":"ex.io/v1","kind":"Foo","metadata":{"labels":{"a":1}}}"#,
            400,
            "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string".to_owned(),
        ),
    ] {
        check(&http.send(Method::POST, FOOS, JSON, body).await, code, &words);
    }
    let path = format!("{FOOS}/f");
    for (patch, code, words) in [
        (json!({"kind": null}), 422, "Object 'Kind' is missing in '{\"apiVersion\":\"ex.io/v1\",\"metadata\":{"),
        (json!({"kind": 5}), 422, "json: cannot unmarshal number into Go struct field .kind of type string"),
        (json!({"apiVersion": null}), 400, "Object 'apiVersion' is missing in 'object has no apiVersion field'"),
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment"}),
            422,
            "Deployment.apps \"f\" is invalid: [kind: Invalid value: \"Deployment\": must be Foo, apiVersion: Invalid \
             value: \"apps/v1\": must be ex.io/v1]",
        ),
        (json!({"apiVersion": "a/b/c"}), 422, "unexpected GroupVersion string: a/b/c"),
        (json!({"metadata": {"labels": "x"}}), 422, "into Go struct field ObjectMeta.labels of type map[string]string"),
    ] {
        let answer = http.patch(&path, MERGE, &patch).await;
        check(&answer, code, words);
        assert!(!message(&answer).contains("cannot be handled as a"), "{}", message(&answer));
    }
    // A number is the same with a fraction of nothing: an apply of it changes nothing.
    let mut counted = foo("f");
    counted["spec"] = json!({"n": 5});
    let owner = format!("{path}?fieldManager=me");
    let once = http.patch(&owner, APPLY, &counted).await.expect(200);
    counted["spec"] = json!({"n": 5.0});
    let again = http.patch(&owner, APPLY, &counted).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], once["metadata"]["resourceVersion"]);
    check(&http.get(&format!("{path}/nope")).await, 404, "foos.ex.io \"f\" not found");
    // A status is written by itself.
    http.patch(&format!("{path}/status"), MERGE, &json!({"apiVersion": "ex.io/v2"})).await.expect(200);
    // The path of a create may name what it creates, and nothing else.
    check(&http.post(&path, &foo("f")).await, 409, "foos.ex.io \"f\" already exists");
    let why = "the name of the object (other) does not match the name on the URL";
    http.post(&path, &foo("other")).await.refused(400, "BadRequest", why);
    http.post(&format!("{MAPS}/m"), &map("m")).await.refused(405, "MethodNotAllowed", "the server does not allow");
    let mut nameless = foo("f");
    nameless["metadata"] = json!({});
    let unnamed = "the name of the object (new based on URL) was undeterminable: name must be provided";
    check(&http.patch(&format!("{FOOS}/new?fieldManager=me"), APPLY, &nameless).await, 400, unnamed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_of_the_wrong_types_is_told_where_it_fails() {
    let c = cluster().await;
    let http = c.admin();
    http.post(DEPLOYMENTS, &deployment()).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let pod = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    for (patch, code, words) in [
        (json!({"$patch": "x"}), 400, "unknown patch type: x in map: map[$patch:x]"),
        (
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {"maxSurge": 1}}}}),
            400,
            "invalid patch format of retainKeys",
        ),
        (json!({"$patch": 5}), 400, "unknown patch type: %!s(int64=5) in map: map[$patch:5]"),
        (
            pod(json!({"containers": [{"image": "x"}]})),
            400,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (pod(json!({"containers": [5]})), 400, "list element types are not identical: [[map[image:i "),
        (pod(json!({"$setElementOrder/containers": "x"})), 400, "expected a []interface {}, but received a string"),
        (pod(json!({"$setElementOrder/containers": [5]})), 400, "value for key 0 is not a map"),
        (
            pod(json!({"$setElementOrder/containers": [{}]})),
            400,
            "map: map[] does not contain declared merge key: name",
        ),
        (
            pod(json!({"$setElementOrder/containers": [{"name": "z"}], "containers": [{"name": "c", "image": "x"}]})),
            400,
            "The order in patch list:\n[map[image:x name:c]]\n doesn't match $setElementOrder list:\n[map[name:z]]\n",
        ),
        (
            pod(json!({"containers": 5})),
            422,
            "patch: Invalid value: \"map[spec:map[template:map[spec:map[containers:5]]]]\": cannot restore slice from int64",
        ),
        (json!({"spec": {"replicas": "x"}}), 422, "\"map[spec:map[replicas:x]]\": unrecognized type: int32"),
        (json!({"spec": {"replicas": 5.5}}), 422, "\"map[spec:map[replicas:5.5]]\": cannot convert float64 to int32"),
        (json!({"spec": "x"}), 422, "\"map[spec:x]\": cannot restore struct from: string"),
        (json!({"metadata": {"labels": "x"}}), 422, "\"map[metadata:map[labels:x]]\": cannot restore map from string"),
        (json!({"metadata": {"labels": {"a": 5}}}), 422, "cannot convert int64 to string"),
    ] {
        check(&http.patch(&path, STRATEGIC, &patch).await, code, words);
    }
    let whole = http.patch(&path, STRATEGIC, &json!({"spec": {"replicas": 5.0}})).await;
    assert_eq!(whole.expect(200)["spec"]["replicas"], 5);
    let strict = format!("{path}?fieldValidation=Strict");
    let unknown = "patch: Invalid value: \"map[foo:1]\": strict decoding error: unknown field \\\"foo\\\"";
    check(&http.patch(&strict, STRATEGIC, &json!({"foo": 1})).await, 422, &unknown.replace('\\', ""));
    for (meta, words) in [
        (json!({"name": "z"}), "the name of the object (z) does not match the name on the URL (d)"),
        (json!({"namespace": "z"}), "the namespace of the provided object does not match the namespace sent on"),
    ] {
        check(&http.patch(&format!("{path}/scale"), MERGE, &json!({"metadata": meta})).await, 400, words);
    }
    let member = json!([{"op": 5, "path": "/a"}]);
    let why = "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string";
    check(&http.patch(&path, JSON_PATCH, &member).await, 400, why);
    check(&http.patch(&path, MERGE, &Value::Null).await, 400, "Invalid JSON Patch");
    http.patch(&path, STRATEGIC, &Value::Null).await.expect(200);
    check(
        &http.patch(&path, MERGE, &json!({"spec": {"replicas": 5.5}})).await,
        422,
        "json: cannot unmarshal number 5.5",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_is_held_to_the_types_of_its_kind() {
    let c = cluster().await;
    let http = c.admin();
    http.post(DEPLOYMENTS, &deployment()).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d?fieldManager=me&force=true");
    let container = |c: Value| json!({"template": {"spec": {"containers": [c]}}});
    let untyped = |why: &str| format!("failed to create typed patch object (/d; apps/v1, Kind=Deployment): {why}");
    let within = ".spec.template.spec.containers[name=\"c\"]";
    for (spec, words) in [
        (json!({"replicas": "x"}), untyped(".spec.replicas: expected numeric (int or float), got string")),
        (json!({"replicas": []}), untyped(".spec.replicas: expected numeric (int or float), got []interface {}")),
        (json!({"paused": 1}), untyped(".spec.paused: expected boolean, got &{1}")),
        (json!({"template": 5}), untyped(".spec.template: expected map, got &{5}")),
        (json!({"template": {"spec": {"containers": 5}}}), untyped(".spec.template.spec.containers: expected list, got &{5}")),
        (
            json!({"selector": {"matchLabels": {"a": 1}}}),
            untyped(".spec.selector.matchLabels.a: expected string, got &value.valueUnstructured{Value:1}"),
        ),
        (
            container(json!({"name": "c", "command": "x"})),
            untyped(&format!("{within}.command: expected list, got &{{x}}")),
        ),
        (
            json!({"replicas": 1.5}),
            "failed to convert new object (/d; apps/v1, Kind=Deployment) to proper version: unable to convert unstructured \
             object to apps/v1, Kind=Deployment: cannot convert float64 to int32"
                .to_owned(),
        ),
    ] {
        let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
        check(&http.patch(&path, APPLY, &body).await, 400, &words);
    }
    let applied =
        |spec: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
    assert_eq!(http.patch(&path, APPLY, &applied(json!({"replicas": 2.0}))).await.expect(200)["spec"]["replicas"], 2);
    // A key that Go always writes is there, though it is empty.
    let nameless = applied(container(json!({"image": "i"})));
    check(&http.patch(&path, APPLY, &nameless).await, 422, "spec.template.spec.containers[1].name: Required value");
    let mut garbled = applied(json!({}));
    garbled["metadata"] = json!({"name": "new", "resourceVersion": "x"});
    let new = format!("{DEPLOYMENTS}/new?fieldManager=me");
    check(&http.patch(&new, APPLY, &garbled).await, 400, "strconv.ParseUint: parsing \"x\": invalid syntax");
    let numbered = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n", "generation": -1}});
    check(
        &http.patch(&format!("{MAPS}/n?fieldManager=me"), APPLY, &numbered).await,
        422,
        "metadata.generation: Invalid",
    );
    let mut unnamed = applied(json!({"replicas": 2}));
    unnamed["metadata"]["name"] = "".into();
    let words = "the name of the object (d based on URL) was undeterminable: name must be provided";
    check(&http.patch(&path, APPLY, &unnamed).await, 400, words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_says_which_pod_goes_where() {
    let c = cluster().await;
    let http = c.admin();
    let account = json!({"metadata": {"name": "default"}});
    http.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    let made = http.post(PODS, &pod).await.expect(201);
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{PODS}/p/binding");
    let bind = |meta: Value, target: Value| json!({"metadata": meta, "target": target});
    let two = "[target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\", target.name: Required value]";
    check(&http.post(&path, &bind(json!({"name": "p"}), json!({"kind": "Pod"}))).await, 422, two);
    let bound = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\"";
    check(&http.post(&path, &bind(json!({"name": "p"}), json!({"name": "n"}))).await, 409, bound);
    // Which pod is meant is looked at first.
    let stale = format!(
        "Key: /registry/pods/default/p, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: ResourceVersion in \
         precondition: 1, ResourceVersion in object meta: {version}"
    );
    let meta = json!({"name": "p", "resourceVersion": "1"});
    check(&http.post(&path, &bind(meta, json!({"name": "n"}))).await, 409, &stale);
    let old = "/api/v1/namespaces/default/bindings";
    check(&http.post(old, &bind(json!({}), json!({"name": "n"}))).await, 400, "Name parameter required.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_is_still_to_come_is_told_where_a_watch_begins() {
    let c = cluster().await;
    let http = c.admin();
    let watch = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=99999999&timeoutSeconds=9"
    );
    let list = format!("{MAPS}?resourceVersionMatch=Exact&resourceVersion=99999999");
    let (watched, listed) = tokio::join!(http.get(&watch), http.get(&list));
    assert!(!watched.headers.contains_key("retry-after"));
    let event = watched.expect(200);
    let status = &event["object"];
    assert_eq!((&event["type"], &status["code"]), (&json!("ERROR"), &json!(504)));
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    assert!(
        status["message"].as_str().unwrap().starts_with("Timeout: Too large resource version: 99999999, current: ")
    );
    // Nobody need come back for a state that is meant exactly.
    check(&listed, 504, "Timeout: Too large resource version: 99999999, current: ");
    assert!(!listed.headers.contains_key("retry-after"));
    assert!(listed.json()["details"]["retryAfterSeconds"].is_null());
}
