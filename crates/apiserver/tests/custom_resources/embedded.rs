//! Objects inside custom resources, and what defaults are held to when a definition is written.

use serde_json::{Value, json};

use super::support::{Http, cluster};
use super::{DEFINITIONS, WIDGETS, definition, establish, widget};

fn with(properties: Value) -> Value {
    let mut d = definition();
    let version = &mut d["spec"]["versions"][0];
    version["schema"] = json!({ "openAPIV3Schema": { "type": "object", "properties": properties } });
    version.as_object_mut().unwrap().retain(|k, _| matches!(k.as_str(), "name" | "served" | "storage" | "schema"));
    d
}

fn object(more: Value) -> Value {
    let mut o = widget("w", Value::Null);
    o.as_object_mut().unwrap().remove("spec");
    for (k, v) in more.as_object().unwrap() {
        o[k] = v.clone();
    }
    o
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_inside_have_types_and_metadata() {
    let cluster = cluster().await;
    let http = cluster.admin();
    let inner = json!({ "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true });
    let mut nested = inner.clone();
    nested["properties"] = json!({ "inner": inner });
    let free = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    establish(&http, &with(json!({ "embedded": nested, "free": free }))).await;
    let pod = |meta: Value| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta });
    let mut outer = pod(json!({ "name": "p", "odd": 1 }));
    outer["inner"] = pod(json!({ "name": "q", "odd": 1 }));
    let whole = object(json!({ "embedded": outer, "free": pod(json!({ "name": "r", "odd": 1 })) }));
    let why =
        "strict decoding error: unknown field \"embedded.inner.metadata.odd\", unknown field \"embedded.metadata.odd\"";
    http.post(&format!("{WIDGETS}?fieldValidation=Strict"), &whole).await.refused(400, "BadRequest", why);
    let made = http.post(WIDGETS, &whole).await.expect(201);
    assert_eq!(made["embedded"]["metadata"], json!({ "name": "p" }));
    assert_eq!(made["embedded"]["inner"]["metadata"], json!({ "name": "q" }));
    assert_eq!(made["free"]["metadata"], json!({ "name": "r", "odd": 1 }));

    let wrong = object(json!({ "embedded": pod(json!({ "name": "p", "namespace": 42 })) }));
    http.post(WIDGETS, &wrong).await.refused(400, "BadRequest", "embedded.metadata: Invalid value");
    let mut bad = pod(json!({ "name": "..", "labels": { "a": "x y" } }));
    bad["kind"] = "%".into();
    bad["apiVersion"] = "a/b/c".into();
    bad["inner"] = json!({ "kind": "" });
    let body = http.post(WIDGETS, &object(json!({ "embedded": bad }))).await.expect(422);
    let message = body["message"].as_str().unwrap();
    for part in [
        "embedded.kind: Invalid value: \"%\": may have mixed case, but should otherwise match",
        "embedded.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
        "embedded.metadata.name: Invalid value: \"..\": may not be '..'",
        "embedded.metadata.labels: Invalid value: \"x y\"",
        "embedded.inner.kind: Invalid value: \"\": must not be empty",
        "embedded.inner.apiVersion: Required value",
    ] {
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
}

async fn refused(http: &Http, properties: Value, why: &str) {
    http.post(DEFINITIONS, &with(properties)).await.refused(422, "Invalid", why);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defaults_must_pass_their_own_rules() {
    let cluster = cluster().await;
    let http = cluster.admin();
    let number = |default: Value, rules: Value| json!({ "n": { "type": "integer", "default": default, "x-kubernetes-validations": rules } });
    let at = "spec.validation.openAPIV3Schema.properties[n].default: Invalid value: 1: ";
    let positive = json!([{ "rule": "self > 1", "message": "more than one" }]);
    refused(&http, number(1.into(), positive.clone()), &format!("{at}more than one")).await;
    // As a new value, too.
    let old = json!([{ "rule": "oldSelf.hasValue()", "optionalOldSelf": true, "message": "never new" }]);
    refused(&http, number(1.into(), old), &format!("{at}never new")).await;
    let kept = json!([{ "rule": "self == oldSelf" }]);
    establish(&http, &with(number(2.into(), json!([positive[0], kept[0]])))).await;

    let inner = |meta: Value| {
        json!({ "e": { "type": "object", "x-kubernetes-embedded-resource": true, "properties": {
            "metadata": { "type": "object", "default": meta, "properties": { "name": { "type": "string" } } } } } })
    };
    let other = |properties: Value| {
        let mut d = with(properties);
        d["metadata"]["name"] = "gadgets.shop.example.com".into();
        d["spec"]["names"] = json!({ "plural": "gadgets", "kind": "Gadget" });
        d
    };
    let why = "properties[e].properties[metadata].default: Invalid value: {\"name\":\"..\"}: must result in valid metadata: metadata.name: Invalid value: \"..\"";
    http.post(DEFINITIONS, &other(inner(json!({ "name": ".." })))).await.refused(422, "Invalid", why);
    let why = "must result in valid metadata: metadata: Invalid value: {\"name\":7}: json: cannot unmarshal number into Go struct field ObjectMeta.name of type string";
    http.post(DEFINITIONS, &other(inner(json!({ "name": 7 })))).await.refused(422, "Invalid", why);
    http.post(DEFINITIONS, &other(inner(json!({ "name": "fine" })))).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_needs_replicas_to_be_read() {
    let cluster = cluster().await;
    let http = cluster.admin();
    establish(&http, &definition()).await;
    http.post(WIDGETS, &widget("w", json!({ "size": 1 }))).await.expect(201);
    let scale = format!("{WIDGETS}/w/scale");
    let why = "the spec replicas field \".spec.replicas\" does not exist";
    http.get(&scale).await.refused(500, "InternalError", why);
    let merge = "application/merge-patch+json";
    let why = "the spec replicas field \".spec.replicas\" cannot be empty";
    http.patch(&scale, merge, &json!({ "metadata": { "labels": {} } })).await.refused(400, "BadRequest", why);
    let up = http.patch(&scale, merge, &json!({ "spec": { "replicas": 3 } })).await.expect(200);
    assert_eq!(up["spec"]["replicas"], 3);
    let why = ".spec.replicas: Invalid value: -1: should be a non-negative integer";
    let bad = json!({ "spec": { "replicas": -1 } });
    http.patch(&format!("{WIDGETS}/w"), merge, &bad).await.refused(422, "Invalid", why);
}
