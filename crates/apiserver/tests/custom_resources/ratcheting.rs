//! Rules that became stricter than stored objects and definitions: what was wrong may stay as it is.

use serde_json::{Value, json};

use super::support::{Cluster, Http, cluster};
use super::{DEFINITIONS, WIDGETS, definition, establish, widget};

const WIDGET: &str = "/apis/shop.example.com/v1/namespaces/default/widgets/w";
const MERGE: &str = "application/merge-patch+json";

fn with_spec(spec: Value) -> Value {
    let mut d = definition();
    let version = &mut d["spec"]["versions"][0];
    version["schema"] = json!({ "openAPIV3Schema": { "type": "object", "properties": {
        "spec": spec, "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } } });
    let members = version.as_object_mut().unwrap();
    members.retain(|k, _| matches!(k.as_str(), "name" | "served" | "storage" | "schema"));
    version["subresources"] = json!({ "status": {} });
    d
}

/// Puts another schema of `spec` into a definition that is served, and waits until it is.
async fn change(http: &Http, spec: Value) {
    let mut watch = http.watch(&format!("{WIDGETS}?watch=1")).await;
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let patch = json!([{ "op": "replace", "path": path, "value": spec }]);
    let at = format!("{DEFINITIONS}/widgets.shop.example.com");
    http.patch(&at, "application/json-patch+json", &patch).await.expect(200);
    while watch.next().await.is_some() {}
}

async fn begin(spec: Value, object: Value) -> (Cluster, Http) {
    let cluster = cluster().await;
    let http = cluster.admin();
    establish(&http, &with_spec(spec)).await;
    http.post(WIDGETS, &widget("w", object)).await.expect(201);
    (cluster, http)
}

async fn put(http: &Http, spec: Value) -> super::support::Answer {
    http.patch(WIDGET, "application/json-patch+json", &json!([{ "op": "replace", "path": "/spec", "value": spec }]))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elements_of_maps_are_told_by_their_keys_and_others_are_not() {
    let list = |kind: &str, more: Value| {
        let mut list = json!({ "type": "array", "items": { "type": "object", "required": ["name"], "properties": {
            "name": { "type": "string" }, "port": { "type": "integer" }, "note": { "type": "string" } } } });
        if kind == "map" {
            list["x-kubernetes-list-type"] = "map".into();
            list["x-kubernetes-list-map-keys"] = json!(["name"]);
        }
        for (k, v) in more.as_object().unwrap() {
            list[k] = v.clone();
        }
        list
    };
    let schema = |map: Value, plain: Value| json!({ "type": "object", "properties": { "map": list("map", map), "plain": list("", plain) } });
    let item = |name: &str, port: i64| json!({ "name": name, "port": port });
    let both = |items: Value| json!({ "map": items, "plain": items });
    let (_cluster, http) =
        begin(schema(json!({}), json!({})), both(json!([item("a", 1), item("b", 3), item("c", 5)]))).await;

    // Too many, and yet in another order.
    change(&http, schema(json!({ "maxItems": 2 }), json!({}))).await;
    let turned = json!({ "map": [item("c", 5), item("a", 1), item("b", 3)], "plain": [item("a", 1), item("b", 3), item("c", 5)] });
    put(&http, turned.clone()).await.expect(200);
    let mut more = turned.clone();
    more["map"].as_array_mut().unwrap().push(item("d", 2));
    put(&http, more).await.refused(422, "Invalid", "spec.map: Too many: 4: must have at most 2 items");

    // Each element by itself in a map; a plain list stays or changes whole.
    let even = |kind: &str| {
        let mut items = list(kind, json!({}))["items"].clone();
        items["properties"]["port"]["multipleOf"] = 2.into();
        json!({ "items": items })
    };
    change(&http, schema(even("map"), even(""))).await;
    let mut more = turned.clone();
    more["map"].as_array_mut().unwrap().push(item("d", 2));
    more["map"][0]["note"] = "the port may stay".into();
    put(&http, more.clone()).await.expect(200);
    more["map"][0]["port"] = 7.into();
    put(&http, more.clone()).await.refused(422, "Invalid", "spec.map[0].port in body should be a multiple of 2");
    more["map"][0]["port"] = 5.into();
    more["plain"].as_array_mut().unwrap().push(item("d", 2));
    put(&http, more).await.refused(422, "Invalid", "spec.plain[0].port in body should be a multiple of 2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_that_were_there_excuse_new_ones_and_formats_hold_for_changes() {
    let schema = |list: &str, format: &str| {
        json!({ "type": "object", "properties": {
            "list": { "type": "array", "items": { "type": "integer" }, "x-kubernetes-list-type": list },
            "text": { "type": "string", "format": format }, "other": { "type": "string" } } })
    };
    let (_cluster, http) = begin(schema("atomic", ""), json!({ "list": [1, 1], "text": "no bytes" })).await;
    change(&http, schema("set", "byte")).await;
    put(&http, json!({ "list": [1, 1, 2, 2], "text": "no bytes", "other": "x" })).await.expect(200);
    put(&http, json!({ "list": [1], "text": "still none", "other": "x" })).await.refused(
        422,
        "Invalid",
        "must be of type byte",
    );
    put(&http, json!({ "list": [1], "text": "YnV0IG5vdw==" })).await.expect(200);
    put(&http, json!({ "list": [1, 1] })).await.refused(422, "Invalid", "spec.list[1]: Duplicate value: 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_warn_of_what_was_wrong_already_unless_they_compare() {
    let schema = |rules: Value| {
        json!({ "type": "object", "properties": { "of": { "type": "object", "additionalProperties": {
            "type": "object", "properties": { "name": { "type": "string", "x-kubernetes-validations": rules }, "n": { "type": "integer" } } } } } })
    };
    let (_cluster, http) = begin(schema(json!([])), json!({ "of": { "a": { "name": "plain", "n": 1 } } })).await;
    let prefixed = json!([{ "rule": "self.startsWith('k8s')", "message": "needs a prefix" }]);
    change(&http, schema(prefixed.clone())).await;
    let answer = put(&http, json!({ "of": { "a": { "name": "plain", "n": 2 }, "b": { "name": "k8s-b" } } })).await;
    let warnings: Vec<&str> = answer.headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert!(
        warnings.iter().any(|w| w.contains("spec.of[a].name: Invalid value: \\\"plain\\\": needs a prefix")),
        "{warnings:?}"
    );
    answer.expect(200);
    let why = "spec.of[a].name: Invalid value: \"other\": needs a prefix";
    put(&http, json!({ "of": { "a": { "name": "other" } } })).await.refused(422, "Invalid", why);
    let why = "spec.of[c].name: Invalid value: \"plain\": needs a prefix";
    put(&http, json!({ "of": { "c": { "name": "plain" } } })).await.refused(422, "Invalid", why);

    let compares = json!([{ "rule": "!oldSelf.hasValue()", "message": "set once", "optionalOldSelf": true }]);
    change(&http, schema(compares)).await;
    let again = json!({ "of": { "a": { "name": "plain", "n": 3 }, "b": { "name": "k8s-b" } } });
    put(&http, again).await.refused(422, "Invalid", "spec.of[a].name: Invalid value: \"plain\": set once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_held_to_its_own_schema_alone() {
    let (_cluster, http) =
        begin(json!({ "type": "object", "properties": { "n": { "type": "integer" } } }), json!({ "n": 5 })).await;
    let tight = json!([{ "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": {
        "type": "object", "required": ["spec"], "properties": {
            "spec": { "type": "object", "required": ["new"], "properties": { "n": { "type": "integer", "maximum": 1 }, "new": { "type": "string" } } },
            "status": { "type": "object", "properties": { "phase": { "type": "string", "maxLength": 3 }, "n": { "type": "integer" } } } } } }]);
    let mut watch = http.watch(&format!("{WIDGETS}?watch=1")).await;
    let at = format!("{DEFINITIONS}/widgets.shop.example.com");
    http.patch(&at, "application/json-patch+json", &tight).await.expect(200);
    while watch.next().await.is_some() {}
    let status = format!("{WIDGET}/status");
    http.patch(&status, MERGE, &json!({ "status": { "phase": "ok" } })).await.expect(200);
    let why = "status.phase: Too long: may not be more than 3 bytes";
    http.patch(&status, MERGE, &json!({ "status": { "phase": "long" } })).await.refused(422, "Invalid", why);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finalizers_without_a_domain_are_warned_of_once() {
    let (_cluster, http) = begin(json!({ "type": "object" }), json!({})).await;
    let warned = |answer: &super::support::Answer, name: &str| {
        let all: Vec<_> = answer.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
        all.iter().any(|w| {
            w.contains(&format!("metadata.finalizers: \\\"{name}\\\": prefer a domain-qualified finalizer name"))
        })
    };
    let answer = http.patch(WIDGET, MERGE, &json!({ "metadata": { "finalizers": ["mine", "orphan", "a.b/c"] } })).await;
    assert!(warned(&answer, "mine") && !warned(&answer, "orphan") && !warned(&answer, "a.b/c"));
    answer.expect(200);
    let answer = http.patch(WIDGET, MERGE, &json!({ "metadata": { "finalizers": ["mine", "also.mine"] } })).await;
    assert!(!warned(&answer, "mine") && warned(&answer, "also.mine"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_name_what_versions_share_at_the_spec() {
    let cluster = cluster().await;
    let http = cluster.admin();
    let bad = |number: i64| {
        json!({ "openAPIV3Schema": { "type": "object", "properties": {
        "spec": { "type": "object", "properties": { "n": { "type": "integer", "default": format!("x{number}") } } } } } })
    };
    let mut one = definition();
    one["spec"]["versions"][0]["schema"] = bad(1);
    one["spec"]["versions"][0].as_object_mut().unwrap().remove("selectableFields");
    let mut second = one["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    one["spec"]["versions"].as_array_mut().unwrap().push(second);
    let tail = "openAPIV3Schema.properties[spec].properties[n].default: Invalid value: \"string\"";
    http.post(DEFINITIONS, &one).await.refused(422, "Invalid", &format!("spec.validation.{tail}"));
    one["spec"]["versions"][1]["schema"] = bad(2);
    let answer = http.post(DEFINITIONS, &one).await.expect(422);
    let message = answer["message"].as_str().unwrap();
    for i in 0..2 {
        assert!(message.contains(&format!("spec.versions[{i}].schema.{tail}")), "{message}");
    }
    let warn = |answer: &super::support::Answer| {
        answer.headers.get_all("warning").iter().any(|w| w.to_str().unwrap().contains("unrecognized format"))
    };
    let mut odd =
        with_spec(json!({ "type": "object", "properties": { "a": { "type": "string", "format": "sqaure" } } }));
    let answer = http.post(DEFINITIONS, &odd).await;
    assert!(warn(&answer));
    answer.expect(201);
    odd["spec"]["names"]["categories"] = json!(["other"]);
    let at = format!("{DEFINITIONS}/widgets.shop.example.com");
    let answer = http.patch(&at, MERGE, &odd).await;
    assert!(!warn(&answer), "it was there before");
    answer.expect(200);
}
