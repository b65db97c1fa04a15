//! Custom resources over HTTP: the life of a definition, what its schema does to objects, versions,
//! subresources, discovery and the documents that are published.
#![allow(clippy::unwrap_used, missing_docs)]

mod embedded;
mod ratcheting;
#[path = "../support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::{Http, cluster};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/shop.example.com/v1/namespaces/default/widgets";

fn schema() -> Value {
    json!({
        "type": "object",
        "description": "A thing to sell.",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": { "type": "integer", "minimum": 1, "maximum": 10 },
                    "color": { "type": "string", "enum": ["red", "green"], "default": "red" },
                    "code": { "type": "string", "pattern": "^[a-z]+$", "maxLength": 5 },
                    "replicas": { "type": "integer" },
                    "port": { "x-kubernetes-int-or-string": true },
                    "tags": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
                    "parts": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": { "type": "object", "required": ["name"], "properties": {
                            "name": { "type": "string" }, "weight": { "type": "integer", "default": 7 }
                        } }
                    },
                    "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
                }
            },
            "status": { "type": "object", "properties": {
                "phase": { "type": "string" }, "replicas": { "type": "integer" }, "selector": { "type": "string" }
            } }
        }
    })
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.shop.example.com" },
        "spec": {
            "group": "shop.example.com",
            "scope": "Namespaced",
            "names": { "plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["shop"] },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": schema() },
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector"
                    }
                },
                "additionalPrinterColumns": [
                    { "name": "Size", "type": "integer", "jsonPath": ".spec.size" },
                    { "name": "Color", "type": "string", "jsonPath": ".spec.color", "description": "Its paint" }
                ],
                "selectableFields": [{ "jsonPath": ".spec.color" }]
            }]
        }
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "shop.example.com/v1", "kind": "Widget", "metadata": { "name": name }, "spec": spec })
}

fn condition<'v>(definition: &'v Value, kind: &str) -> &'v Value {
    let all = definition["status"]["conditions"].as_array().unwrap();
    all.iter().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

/// Creates a definition, and waits until it is established.
async fn establish(http: &Http, definition: &Value) -> Value {
    let name = definition["metadata"]["name"].as_str().unwrap();
    let mut watch = http.watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}")).await;
    http.post(DEFINITIONS, definition).await.expect(201);
    loop {
        let object = watch.next().await.unwrap()["object"].clone();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
            return object;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_lives_serves_and_dies() {
    let cluster = cluster().await;
    let http = cluster.admin();
    // Nobody serves a group of that name yet.
    assert_eq!(&http.get(WIDGETS).await.bytes[..], b"404 page not found\n");
    let made = establish(&http, &definition()).await;
    assert_eq!(made["spec"]["names"]["singular"], "widget");
    assert_eq!(made["spec"]["names"]["listKind"], "WidgetList");
    assert_eq!(made["spec"]["conversion"]["strategy"], "None");
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made["status"]["acceptedNames"]["plural"], "widgets");
    assert_eq!(condition(&made, "NamesAccepted")["reason"], "NoConflicts");

    let object = http.post(WIDGETS, &widget("a", json!({ "size": 3 }))).await.expect(201);
    assert_eq!(object["spec"], json!({ "size": 3, "color": "red" }));
    assert_eq!(object["metadata"]["generation"], 1);
    let list = http.get(WIDGETS).await.expect(200);
    assert_eq!(list["kind"], "WidgetList");
    assert_eq!(list["items"][0]["metadata"]["name"], "a");

    let mut held = widget("held", json!({ "size": 1 }));
    held["metadata"]["finalizers"] = json!(["shop.example.com/hold"]);
    http.post(WIDGETS, &held).await.expect(201);
    let mut watch = http.watch(&format!("{WIDGETS}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    let path = format!("{DEFINITIONS}/widgets.shop.example.com");
    let going = http.delete(&path).await.expect(200);
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    // The object that is held keeps the definition.
    loop {
        let event = watch.next().await.unwrap();
        if event["object"]["metadata"]["name"] == "held" && event["object"]["metadata"]["deletionTimestamp"].is_string()
        {
            break;
        }
    }
    http.post(WIDGETS, &widget("late", json!({ "size": 1 }))).await.refused(
        405,
        "MethodNotAllowed",
        "create not allowed while custom resource definition is terminating",
    );
    let patch = json!({ "metadata": { "finalizers": null } });
    http.patch(&format!("{WIDGETS}/held"), "application/merge-patch+json", &patch).await.expect(200);
    // The watch of what is served no longer ends.
    while watch.next().await.is_some() {}
    let mut gone = http.get(&path).await;
    for _ in 0..2000 {
        if gone.status == 404 && http.get(WIDGETS).await.status == 404 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        gone = http.get(&path).await;
    }
    gone.refused(
        404,
        "NotFound",
        "customresourcedefinitions.apiextensions.k8s.io \"widgets.shop.example.com\" not found",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_held_to_their_schema() {
    let cluster = cluster().await;
    let http = cluster.admin();
    establish(&http, &definition()).await;
    let refused = |spec: Value| {
        let http = http.clone();
        async move { http.post(WIDGETS, &widget("x", spec)).await.expect(422) }
    };
    let check = |body: &Value, cause: (&str, &str, &str)| {
        let causes = body["details"]["causes"].as_array().unwrap();
        let wanted = json!({ "reason": cause.0, "field": cause.1, "message": cause.2 });
        assert!(causes.contains(&wanted), "{causes:#?}\nlacks {wanted:#}");
    };
    let body = refused(json!({})).await;
    check(&body, ("FieldValueRequired", "spec.size", "Required value"));
    assert_eq!(body["message"], "Widget.shop.example.com \"x\" is invalid: spec.size: Required value");
    let body = refused(json!({ "size": "big" })).await;
    let message = "Invalid value: \"string\": spec.size in body must be of type integer: \"string\"";
    check(&body, ("FieldValueTypeInvalid", "spec.size", message));
    let body = refused(json!({ "size": 11, "color": "blue", "code": "ABCDEF", "port": true })).await;
    let message = "Invalid value: 11: spec.size in body should be less than or equal to 10";
    check(&body, ("FieldValueInvalid", "spec.size", message));
    let message = "Unsupported value: \"blue\": supported values: \"red\", \"green\"";
    check(&body, ("FieldValueNotSupported", "spec.color", message));
    check(&body, ("FieldValueTooLong", "spec.code", "Too long: may not be more than 5 bytes"));
    let message = "Invalid value: \"ABCDEF\": spec.code in body should match '^[a-z]+$'";
    check(&body, ("FieldValueInvalid", "spec.code", message));
    let message = "Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"";
    check(&body, ("FieldValueTypeInvalid", "spec.port", message));
    let body = refused(json!({ "size": 1, "tags": ["a", "a"], "parts": [{ "name": "p" }, { "name": "p" }] })).await;
    check(&body, ("FieldValueDuplicate", "spec.tags[1]", "Duplicate value: \"a\""));
    check(&body, ("FieldValueDuplicate", "spec.parts[1]", "Duplicate value: {\"name\":\"p\"}"));

    // Pruning, and strictness about what would be pruned.
    let odd = widget(
        "odd",
        json!({ "size": 1, "colour": "red", "free": { "any": [1] }, "parts": [{ "name": "p", "x": 1 }] }),
    );
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    let why = "strict decoding error: unknown field \"spec.colour\", unknown field \"spec.parts[0].x\"";
    http.post(&strict, &odd).await.refused(400, "BadRequest", why);
    let answer = http.post(WIDGETS, &odd).await;
    assert!(answer.headers.get_all("warning").iter().any(|w| w.to_str().unwrap().contains("unknown field")));
    let made = answer.expect(201);
    let wanted = json!({ "size": 1, "color": "red", "free": { "any": [1] }, "parts": [{ "name": "p", "weight": 7 }] });
    assert_eq!(made["spec"], wanted);

    // What is wrong already may stay, elsewhere changes go on.
    let mut looser = definition();
    looser["metadata"]["name"] = "widgets.shop.example.com".into();
    let path = format!("{DEFINITIONS}/widgets.shop.example.com");
    let tighter = json!([{ "op": "replace",
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size/minimum", "value": 2 }]);
    let mut watch = http.watch(&format!("{WIDGETS}?watch=1")).await;
    watch.next().await.unwrap();
    http.patch(&path, "application/json-patch+json", &tighter).await.expect(200);
    // A definition that changes ends the watches of its objects.
    while watch.next().await.is_some() {}
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    http.patch(&format!("{WIDGETS}/odd"), "application/merge-patch+json", &label).await.expect(200);
    let bad = json!({ "spec": { "size": 0 } });
    http.patch(&format!("{WIDGETS}/odd"), "application/merge-patch+json", &bad).await.refused(
        422,
        "Invalid",
        "spec.size in body should be greater than or equal to 2",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subresources_columns_selectors_and_patches() {
    let cluster = cluster().await;
    let http = cluster.admin();
    establish(&http, &definition()).await;
    let one = format!("{WIDGETS}/one");
    let mut object = widget("one", json!({ "size": 3, "replicas": 2 }));
    object["status"] = json!({ "phase": "Forged" });
    let made = http.post(WIDGETS, &object).await.expect(201);
    assert_eq!(made.get("status"), None);
    http.post(WIDGETS, &widget("two", json!({ "size": 4, "color": "green" }))).await.expect(201);

    let status = json!({ "status": { "phase": "Ready", "replicas": 2, "selector": "a=b" }, "spec": { "size": 9 } });
    let after = http.patch(&format!("{one}/status"), "application/merge-patch+json", &status).await.expect(200);
    assert_eq!((&after["spec"]["size"], &after["metadata"]["generation"]), (&json!(3), &json!(1)));
    assert_eq!(after["status"]["phase"], "Ready");
    let after = http.patch(&one, "application/merge-patch+json", &json!({ "spec": { "size": 5 } })).await.expect(200);
    assert_eq!(after["metadata"]["generation"], 2);

    let scale = http.get(&format!("{one}/scale")).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(scale["status"], json!({ "replicas": 2, "selector": "a=b" }));
    let up = json!({ "spec": { "replicas": 6 } });
    http.patch(&format!("{one}/scale"), "application/merge-patch+json", &up).await.expect(200);
    assert_eq!(http.get(&one).await.expect(200)["spec"]["replicas"], 6);

    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = http.send(http::Method::GET, WIDGETS, &table, "").await.expect(200);
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Size", "Color"]);
    assert_eq!(table["rows"][0]["cells"], json!(["one", 5, "red"]));

    let green = http.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dgreen")).await.expect(200);
    assert_eq!(green["items"].as_array().unwrap().len(), 1);
    http.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D5")).await.refused(
        400,
        "BadRequest",
        "field label not supported: spec.size",
    );
    let strategic = "application/strategic-merge-patch+json";
    assert_eq!(http.patch(&one, strategic, &up).await.status, 415);
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    assert_eq!(http.send(http::Method::GET, &one, &protobuf, "").await.status, 406);
    let both = [("accept", "application/vnd.kubernetes.protobuf,application/json")];
    http.send(http::Method::GET, &one, &both, "").await.expect(200);

    let applied = json!({ "apiVersion": "shop.example.com/v1", "kind": "Widget", "metadata": { "name": "three" },
        "spec": { "size": 2, "parts": [{ "name": "p", "weight": 1 }] } });
    let apply = |who: &str, body: Value| {
        let (http, path) = (http.clone(), format!("{WIDGETS}/three?fieldManager={who}"));
        async move { http.patch(&path, "application/apply-patch+yaml", &body).await }
    };
    apply("a", applied.clone()).await.expect(201);
    let mut other = applied.clone();
    other["spec"] = json!({ "size": 2, "parts": [{ "name": "q", "weight": 2 }] });
    let both = apply("b", other).await.expect(200);
    assert_eq!(both["spec"]["parts"].as_array().unwrap().len(), 2, "{both:#}");
    let mut rival = applied;
    rival["spec"]["parts"][0]["weight"] = 9.into();
    apply("c", rival).await.refused(409, "Conflict", "conflict with \"a\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_and_documents_show_what_is_served() {
    let cluster = cluster().await;
    let http = cluster.admin();
    establish(&http, &definition()).await;
    let list = http.get("/apis/shop.example.com/v1").await.expect(200);
    let found: Vec<&str> = list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(found, ["widgets", "widgets/status", "widgets/scale"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["wd"]));
    assert_eq!(list["resources"][0]["categories"], json!(["shop"]));
    let groups = http.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "shop.example.com"));
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = http.send(http::Method::GET, "/apis", &accept, "").await.expect(200);
    let group = all["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "shop.example.com").unwrap();
    assert_eq!(group["versions"][0]["freshness"], "Current");
    assert_eq!(group["versions"][0]["resources"][0]["responseKind"]["kind"], "Widget");

    let index = http.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/shop.example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = http.get(&url).await.expect(200);
    let published = &document["components"]["schemas"]["com.example.shop.v1.Widget"];
    assert_eq!(published["description"], "A thing to sell.");
    let metadata = published["properties"]["metadata"]["description"].as_str().unwrap();
    assert!(metadata.starts_with("Standard object's metadata."), "{metadata}");
    let version = published["properties"]["apiVersion"]["description"].as_str().unwrap();
    assert!(version.starts_with("APIVersion defines the versioned schema"), "{version}");
    let object_meta = &document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"];
    let created = object_meta["properties"]["creationTimestamp"]["description"].as_str().unwrap();
    assert!(created.starts_with("CreationTimestamp is a timestamp"), "{created}");
    assert_eq!(published["x-kubernetes-selectable-fields"], json!([{ "fieldPath": "spec.color" }]));
    let list = &document["components"]["schemas"]["com.example.shop.v1.WidgetList"];
    assert_eq!(list["x-kubernetes-selectable-fields"], json!([{ "fieldPath": "spec.color" }]));
    let stale = url.split_once('=').unwrap().0.to_owned() + "=0";
    assert_eq!(http.get(&stale).await.status, 301);
    assert_eq!(published["properties"]["spec"]["properties"]["color"]["default"], "red");
    let swagger = http.get("/openapi/v2").await.expect(200);
    assert_eq!(swagger["definitions"]["com.example.shop.v1.Widget"]["properties"]["spec"]["required"], json!(["size"]));
    http.delete(&format!("{DEFINITIONS}/widgets.shop.example.com")).await.expect(200);
    let gone = async {
        while http.get("/apis/shop.example.com/v1").await.status != 404 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("the end of the definition");
    assert_eq!(&http.get("/apis/shop.example.com").await.bytes[..], b"404 page not found\n");
    assert!(http.get("/openapi/v2").await.expect(200)["definitions"].get("com.example.shop.v1.Widget").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_without_certificates_keeps_its_definition_from_being_established() {
    use base64::Engine as _;
    let cluster = cluster().await;
    let http = cluster.admin();
    let mut d = definition();
    let bundle = base64::engine::general_purpose::STANDARD.encode("no certificate");
    d["spec"]["conversion"] = json!({ "strategy": "Webhook", "webhook": {
        "clientConfig": { "url": "https://127.0.0.1:1/convert", "caBundle": bundle },
        "conversionReviewVersions": ["v1"] } });
    let mut watch = http.watch(&format!("{DEFINITIONS}?watch=1")).await;
    http.post(DEFINITIONS, &d).await.expect(201);
    let mut next = async |reason: &str| loop {
        let object = watch.event().await.1;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Established" && c["reason"] == reason) {
            return object;
        }
    };
    let stuck = next("InvalidCABundle").await;
    assert_eq!(condition(&stuck, "Established")["status"], "False");
    assert_eq!(condition(&stuck, "Established")["message"], "The conversion webhook CABundle is invalid");
    assert_eq!(&http.get(WIDGETS).await.bytes[..], b"404 page not found\n");
    let mended = json!({ "spec": { "conversion": { "webhook": { "clientConfig": { "caBundle": null } } } } });
    let one = format!("{DEFINITIONS}/widgets.shop.example.com");
    http.patch(&one, "application/merge-patch+json", &mended).await.expect(200);
    next("InitialNamesAccepted").await;
    http.get(WIDGETS).await.expect(200);
    let broken = json!({ "spec": { "conversion": { "webhook": { "clientConfig": { "caBundle": bundle } } } } });
    let why = "unable to load root certificates";
    http.patch(&one, "application/merge-patch+json", &broken).await.refused(422, "Invalid", why);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_and_roles_hold_for_custom_resources() {
    let cluster = cluster().await;
    let http = cluster.admin();
    establish(&http, &definition()).await;
    let quota = json!({ "metadata": { "name": "q" }, "spec": { "hard": { "count/widgets.shop.example.com": "1" } } });
    http.post("/api/v1/namespaces/default/resourcequotas", &quota).await.expect(201);
    http.post(WIDGETS, &widget("a", json!({ "size": 3 }))).await.expect(201);
    http.post(WIDGETS, &widget("b", json!({ "size": 3 }))).await.refused(
        403,
        "Forbidden",
        "exceeded quota: q, requested: count/widgets.shop.example.com=1, \
         used: count/widgets.shop.example.com=1, limited: count/widgets.shop.example.com=1",
    );

    let user = cluster.as_user("seller", &[]);
    let denied = "User \"seller\" cannot list resource \"widgets\" in API group \"shop.example.com\"";
    user.get(WIDGETS).await.refused(403, "Forbidden", denied);
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({ "metadata": { "name": "seller" }, "rules": [
        { "apiGroups": ["shop.example.com"], "resources": ["widgets"], "verbs": ["get", "list"] }
    ] });
    http.post(&format!("{roles}/roles"), &role).await.expect(201);
    let binding = json!({ "metadata": { "name": "seller" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "seller" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "seller" }] });
    http.post(&format!("{roles}/rolebindings"), &binding).await.expect(201);
    let found = async {
        while user.get(WIDGETS).await.status != 200 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), found).await.expect("what the role grants");
    user.delete(&format!("{WIDGETS}/a")).await.refused(403, "Forbidden", "cannot delete resource \"widgets\"");
    user.get(&format!("{WIDGETS}/a/status")).await.refused(403, "Forbidden", "widgets/status");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_conflict_and_become_free() {
    let cluster = cluster().await;
    let http = cluster.admin();
    establish(&http, &definition()).await;
    let mut rival = definition();
    rival["metadata"]["name"] = "gadgets.shop.example.com".into();
    rival["spec"]["names"] = json!({ "plural": "gadgets", "kind": "Widget", "shortNames": ["wd"] });
    let path = format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3Dgadgets.shop.example.com");
    let mut watch = http.watch(&path).await;
    http.post(DEFINITIONS, &rival).await.expect(201);
    loop {
        let object = watch.next().await.unwrap()["object"].clone();
        if object["status"]["conditions"].is_array() {
            let names = condition(&object, "NamesAccepted");
            assert_eq!((&names["status"], &names["reason"]), (&json!("False"), &json!("ListKindConflict")));
            assert_eq!(condition(&object, "Established")["reason"], "NotAccepted");
            break;
        }
    }
    http.delete(&format!("{DEFINITIONS}/widgets.shop.example.com")).await.expect(200);
    loop {
        let object = watch.next().await.unwrap()["object"].clone();
        if condition(&object, "Established")["status"] == "True" {
            break;
        }
    }
    http.get("/apis/shop.example.com/v1/gadgets").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_share_what_is_stored_and_survive_a_restart() {
    let cluster = cluster().await;
    let http = cluster.admin();
    let mut two = definition();
    let mut v2 = two["spec"]["versions"][0].clone();
    v2["name"] = "v2".into();
    v2["storage"] = false.into();
    v2["deprecated"] = true.into();
    v2["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["color"]["default"] = "green".into();
    two["spec"]["versions"].as_array_mut().unwrap().push(v2);
    establish(&http, &two).await;
    http.post(WIDGETS, &widget("a", json!({ "size": 3 }))).await.expect(201);
    let v2 = "/apis/shop.example.com/v2/namespaces/default/widgets/a";
    let answer = http.get(v2).await;
    assert!(answer.headers["warning"].to_str().unwrap().contains("shop.example.com/v2 Widget is deprecated"));
    assert_eq!(answer.expect(200)["apiVersion"], "shop.example.com/v2");
    let group = http.get("/apis/shop.example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v2");

    // The other version becomes the stored one; what is there is served as before.
    let path = format!("{DEFINITIONS}/widgets.shop.example.com");
    let swap = json!([
        { "op": "replace", "path": "/spec/versions/0/storage", "value": false },
        { "op": "replace", "path": "/spec/versions/1/storage", "value": true },
    ]);
    let after = http.patch(&path, "application/json-patch+json", &swap).await.expect(200);
    assert_eq!(after["status"]["storedVersions"], json!(["v1", "v2"]));
    assert_eq!(http.get(&format!("{WIDGETS}/a")).await.expect(200)["apiVersion"], "shop.example.com/v1");
    let fewer = json!([{ "op": "remove", "path": "/spec/versions/0" }]);
    http.patch(&path, "application/json-patch+json", &fewer).await.refused(
        422,
        "Invalid",
        "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions",
    );

    drop(http);
    let cluster = cluster.restart().await;
    let http = cluster.admin();
    assert_eq!(http.get(v2).await.expect(200)["spec"]["size"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_definitions_are_refused() {
    let cluster = cluster().await;
    let http = cluster.admin();
    let refused = |change: fn(&mut Value)| {
        let http = http.clone();
        async move {
            let mut bad = definition();
            change(&mut bad);
            let body = http.post(DEFINITIONS, &bad).await.expect(422);
            body["message"].as_str().unwrap().to_owned()
        }
    };
    fn root(d: &mut Value) -> &mut Value {
        &mut d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    }
    fn size(d: &mut Value) -> &mut Value {
        &mut root(d)["properties"]["spec"]["properties"]["size"]
    }
    let at = "spec.validation.openAPIV3Schema";
    let check = |found: String, wanted: String| assert!(found.contains(&wanted), "{found}\nlacks {wanted}");
    let found = refused(|d| d["metadata"]["name"] = "other.shop.example.com".into()).await;
    check(found, "must be spec.names.plural+\".\"+spec.group".into());
    let found = refused(|d| d["spec"]["versions"][0]["storage"] = false.into()).await;
    check(found, "must have exactly one version marked as storage version".into());
    let found = refused(|d| root(d)["type"] = "string".into()).await;
    check(found, format!("{at}.type: Invalid value: \"string\": must be object at the root"));
    let found = refused(|d| drop(size(d).as_object_mut().unwrap().remove("type"))).await;
    check(
        found,
        format!(
            "{at}.properties[spec].properties[size].type: Required value: must not be empty for specified object fields"
        ),
    );
    let found = refused(|d| size(d)["uniqueItems"] = true.into()).await;
    check(found, "uniqueItems cannot be set to true since the runtime complexity becomes quadratic".into());
    let found = refused(|d| size(d)["default"] = 99.into()).await;
    check(found, format!("{at}.properties[spec].properties[size].default: Invalid value: 99"));
    let found = refused(|d| size(d)["anyOf"] = json!([{ "type": "integer" }, { "minimum": 2 }])).await;
    check(found, "anyOf[0].type: Forbidden: must be empty to be structural".into());
    let found = refused(|d| d["spec"]["group"] = "nodots".into()).await;
    check(found, "should be a domain with at least one dot".into());
    let found = refused(|d| {
        d["spec"]["group"] = "shop.k8s.io".into();
        d["metadata"]["name"] = "widgets.shop.k8s.io".into();
    })
    .await;
    check(found, "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups".into());
    let found = refused(|d| d["spec"]["versions"][0]["selectableFields"][0]["jsonPath"] = ".spec.missing".into()).await;
    check(found, "spec.selectableFields[0].jsonPath: Invalid value: \".spec.missing\": is an invalid path".into());
    let found = refused(|d| d["spec"]["conversion"] = json!({ "strategy": "Webhook" })).await;
    check(
        found,
        "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook".into(),
    );
    establish(&http, &definition()).await;
    let scope = json!({ "spec": { "scope": "Cluster" } });
    let path = format!("{DEFINITIONS}/widgets.shop.example.com");
    http.patch(&path, "application/merge-patch+json", &scope).await.refused(
        422,
        "Invalid",
        "spec.scope: Invalid value",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_in_cel_are_compiled_and_run() {
    let cluster = cluster().await;
    let http = cluster.admin();
    let with = |rules: Value| {
        let mut d = definition();
        d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] = rules;
        d
    };
    let refused = |rules: Value, why: &'static str| {
        let (http, bad) = (http.clone(), with(rules));
        async move { http.post(DEFINITIONS, &bad).await.refused(422, "Invalid", why) }
    };
    refused(json!([{ "rule": "self.nothing > 1" }]), "undefined field 'nothing'").await;
    refused(json!([{ "rule": "self.size" }]), "cel expression must evaluate to a bool").await;
    refused(
        json!([{ "rule": "self.size > 0", "optionalOldSelf": true }]),
        "may not be set if oldSelf is not used in rule",
    )
    .await;
    let costly = "self.tags.all(x, self.tags.all(y, self.tags.all(z, x == y)))";
    refused(json!([{ "rule": costly }]), "estimated rule cost exceeds budget by factor of more than 100x").await;
    let rules = json!([
        { "rule": "!has(self.replicas) || self.replicas <= self.size", "message": "no more replicas than size" },
        { "rule": "self.size >= oldSelf.size", "messageExpression": "oldSelf.size > 2 ? 'it was large' : 'it was small'", "fieldPath": ".size" },
        { "rule": "self.color != 'green' || self.size > 2", "reason": "FieldValueForbidden" }
    ]);
    establish(&http, &with(rules)).await;
    let object = widget("a", json!({ "size": 3, "replicas": 4 }));
    let why = "spec: Invalid value: no more replicas than size";
    http.post(WIDGETS, &object).await.refused(422, "Invalid", why);
    let why = "spec: Forbidden: failed rule: self.color != 'green' || self.size > 2";
    http.post(WIDGETS, &widget("a", json!({ "size": 1, "color": "green" }))).await.refused(422, "Invalid", why);
    http.post(WIDGETS, &widget("a", json!({ "size": 3 }))).await.expect(201);
    let smaller = json!({ "spec": { "size": 2 } });
    let why = "spec.size: Invalid value: it was large";
    http.patch(&format!("{WIDGETS}/a"), "application/merge-patch+json", &smaller).await.refused(422, "Invalid", why);
}

/// A conversion webhook over TLS: `spec.size` of v1 is `spec.length` of v2. Answers its URL and bundle.
async fn converter() -> (String, String) {
    use http_body_util::{BodyExt, Full};
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let tls =
        rustls::ServerConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/convert", listener.local_addr().unwrap());
    let answer = |request: http::Request<hyper::body::Incoming>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut review: Value = serde_json::from_slice(&body).unwrap();
        let to = review["request"]["desiredAPIVersion"].as_str().unwrap().to_owned();
        let mut objects = review["request"]["objects"].as_array().unwrap().clone();
        let mut result = json!({ "status": "Success" });
        for o in &mut objects {
            o["apiVersion"] = to.clone().into();
            let spec = o["spec"].as_object_mut().unwrap();
            let (from, into) = if to.ends_with("/v2") { ("size", "length") } else { ("length", "size") };
            if let Some(v) = spec.remove(from) {
                if v == 9 {
                    result = json!({ "status": "Failed", "message": "nine is odd" });
                }
                spec.insert(into.to_owned(), v);
            }
        }
        let uid = review["request"]["uid"].clone();
        review.as_object_mut().unwrap().remove("request");
        review["response"] = json!({ "uid": uid, "result": result, "convertedObjects": objects });
        let bytes = bytes::Bytes::from(review.to_string());
        Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(bytes)))
    };
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let io = hyper_util::rt::TokioIo::new(stream);
                let service = hyper::service::service_fn(answer);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    });
    (url, cert.pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_converts_between_versions() {
    use base64::Engine as _;
    let cluster = cluster().await;
    let http = cluster.admin();
    let (url, pem) = converter().await;
    let mut d = definition();
    let mut v2 = d["spec"]["versions"][0].clone();
    v2["name"] = "v2".into();
    v2["storage"] = false.into();
    let spec = &mut v2["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["required"] = json!(["length"]);
    let size = spec["properties"].as_object_mut().unwrap().remove("size").unwrap();
    spec["properties"]["length"] = size;
    v2.as_object_mut().unwrap().remove("additionalPrinterColumns");
    v2["selectableFields"] = json!([{ "jsonPath": ".spec.length" }]);
    d["spec"]["versions"].as_array_mut().unwrap().push(v2);
    let bundle = base64::engine::general_purpose::STANDARD.encode(pem);
    d["spec"]["conversion"] = json!({ "strategy": "Webhook", "webhook": {
        "clientConfig": { "url": url, "caBundle": bundle }, "conversionReviewVersions": ["v1"] } });
    establish(&http, &d).await;
    http.post(WIDGETS, &widget("a", json!({ "size": 3 }))).await.expect(201);
    let second = "/apis/shop.example.com/v2/namespaces/default/widgets";
    let read = http.get(&format!("{second}/a")).await.expect(200);
    assert_eq!((&read["apiVersion"], &read["spec"]["length"]), (&json!("shop.example.com/v2"), &json!(3)));
    let mut other = widget("b", json!({ "length": 4 }));
    other["apiVersion"] = "shop.example.com/v2".into();
    let made = http.post(second, &other).await.expect(201);
    assert_eq!((&made["apiVersion"], &made["spec"]["length"]), (&json!("shop.example.com/v2"), &json!(4)));
    assert_eq!(http.get(&format!("{WIDGETS}/b")).await.expect(200)["spec"]["size"], 4);
    let longer = json!({ "spec": { "length": 5 } });
    let after = http.patch(&format!("{second}/a"), "application/merge-patch+json", &longer).await.expect(200);
    assert_eq!((&after["spec"]["length"], &after["metadata"]["generation"]), (&json!(5), &json!(2)));

    let long = format!("{second}?fieldSelector=spec.length%3D5");
    let names = |list: Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(http.get(&long).await.expect(200)), ["a"]);
    http.get(&format!("{WIDGETS}?fieldSelector=spec.length%3D5")).await.refused(
        400,
        "BadRequest",
        "field label not supported",
    );
    let mut watch = http.watch(&format!("{long}&watch=1")).await;
    assert_eq!(watch.event().await.1["metadata"]["name"], "a");
    let patch = |name: &str, length: i64| {
        let (http, path) = (http.clone(), format!("{second}/{name}"));
        let body = json!({ "spec": { "length": length } });
        async move { http.patch(&path, "application/merge-patch+json", &body).await.expect(200) }
    };
    patch("b", 5).await;
    patch("b", 4).await;
    for kind in ["ADDED", "DELETED"] {
        let (found, object) = watch.event().await;
        assert_eq!((found.as_str(), &object["metadata"]["name"]), (kind, &json!("b")));
    }

    http.post(WIDGETS, &widget("c", json!({ "size": 5 }))).await.expect(201);
    let first = http.get(&format!("{long}&limit=1")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(names(first), ["a"]);
    let last = http.get(&format!("{long}&limit=1&continue={token}")).await.expect(200);
    assert_eq!(last["items"][0]["spec"]["length"], 5);
    assert_eq!(names(last), ["c"]);
    http.delete(&format!("{WIDGETS}/c")).await.expect(200);

    // The other version becomes the stored one: a list holds objects that were stored as either.
    let swap = json!([
        { "op": "replace", "path": "/spec/versions/0/storage", "value": false },
        { "op": "replace", "path": "/spec/versions/1/storage", "value": true },
    ]);
    let path = format!("{DEFINITIONS}/widgets.shop.example.com");
    drop(watch);
    let mut watch =
        http.watch(&format!("{WIDGETS}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan")).await;
    http.patch(&path, "application/json-patch+json", &swap).await.expect(200);
    while watch.next().await.is_some() {}
    other["metadata"]["name"] = "c".into();
    http.post(second, &other).await.expect(201);
    for (path, field) in [(WIDGETS, "size"), (second, "length")] {
        let list = http.get(path).await.expect(200);
        let found: Vec<i64> =
            list["items"].as_array().unwrap().iter().map(|o| o["spec"][field].as_i64().unwrap()).collect();
        assert_eq!(found, [5, 4, 4], "{path}");
    }
    let mut watch = http.watch(&format!("{WIDGETS}?watch=1")).await;
    let (kind, object) = watch.event().await;
    assert_eq!(
        (kind.as_str(), &object["apiVersion"], &object["spec"]["size"]),
        ("ADDED", &json!("shop.example.com/v1"), &json!(5))
    );
    http.post(WIDGETS, &widget("bad", json!({ "size": 9 }))).await.refused(
        500,
        "InternalError",
        "conversion webhook for shop.example.com/v1, Kind=Widget failed: nine is odd",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_openapi_is_there_as_protobuf() {
    let cluster = cluster().await;
    let http = cluster.admin();
    let accept = [("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")];
    let answer = http.send(http::Method::GET, "/openapi/v2", &accept, "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    // Field 1 is the version of OpenAPI.
    assert_eq!(answer.bytes[..5], [0x0a, 3, b'2', b'.', b'0']);
    let tag = answer.headers["etag"].to_str().unwrap().to_owned();
    let known = [accept[0], ("if-none-match", tag.as_str())];
    assert_eq!(http.send(http::Method::GET, "/openapi/v2", &known, "").await.status, 304);
}
