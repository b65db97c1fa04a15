//! The documents as clients read them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use ironkeel_openapi as openapi;
use ironkeel_openapi::Row;
use ironkeel_schema::{Resource, Scope, Subresource, TypeId, resources};
use serde_json::{Value, json};

fn references<'v>(value: &'v Value, out: &mut BTreeSet<&'v str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|v| references(v, out)),
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get("$ref") {
                out.insert(target);
            }
            members.values().for_each(|v| references(v, out));
        }
        _ => {}
    }
}

fn check_references(document: &Value) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    assert!(!found.is_empty());
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        let schema = document.pointer(pointer);
        assert!(schema.is_some_and(Value::is_object), "{target} leads nowhere");
    }
}

fn schema_of_kind<'v>(schemas: &'v Value, group: &str, version: &str, kind: &str) -> Option<&'v Value> {
    let wanted = json!({ "group": group, "version": version, "kind": kind });
    schemas
        .as_object()?
        .values()
        .find(|s| s["x-kubernetes-group-version-kind"].as_array().is_some_and(|marks| marks.contains(&wanted)))
}

#[test]
fn every_v3_reference_leads_to_a_schema_and_every_kind_has_one() {
    let rows = openapi::built_in();
    for (group, version) in openapi::group_versions(&rows) {
        let document = openapi::openapi_v3(&rows, group, version).unwrap();
        check_references(&document);
        for r in resources().iter().filter(|r| r.group == group && r.version == version) {
            let schemas = &document["components"]["schemas"];
            assert!(schema_of_kind(schemas, group, version, r.kind).is_some(), "{group}/{version} {}", r.kind);
            if r.has_verb("list") {
                let list = format!("{}List", r.kind);
                assert!(schema_of_kind(schemas, group, version, &list).is_some(), "{list}");
            }
        }
    }
}

#[test]
fn every_kind_and_its_fields_are_described() {
    let rows = openapi::built_in();
    for (group, version) in openapi::group_versions(&rows) {
        let document = openapi::openapi_v3(&rows, group, version).unwrap();
        let schemas = &document["components"]["schemas"];
        for r in resources().iter().filter(|r| r.group == group && r.version == version) {
            for kind in [r.kind.to_owned(), format!("{}List", r.kind)] {
                let Some(schema) = schema_of_kind(schemas, group, version, &kind) else { continue };
                assert!(schema["description"].is_string(), "{group}/{version} {kind}");
                let text = schema["properties"]["apiVersion"]["description"].as_str().unwrap();
                assert!(text.starts_with("APIVersion defines the versioned schema"), "{text}");
            }
        }
        let meta = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]["properties"]["creationTimestamp"];
        let text = meta["description"].as_str().unwrap();
        assert!(text.starts_with("CreationTimestamp is a timestamp"), "{text}");
        assert_eq!(meta["allOf"][0]["$ref"], "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Time");
    }
    let document = openapi::openapi_v2(&rows);
    let pod = &document["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["metadata"];
    assert!(pod["description"].as_str().unwrap().starts_with("Standard object's metadata."), "{pod}");
    assert_eq!(pod["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let containers = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert!(containers["description"].as_str().unwrap().starts_with("List of containers belonging to the pod."));
}

#[test]
fn a_type_is_described_alike_in_every_document() {
    let rows = openapi::built_in();
    let v2 = openapi::openapi_v2(&rows);
    for (group, version) in openapi::group_versions(&rows) {
        let v3 = openapi::openapi_v3(&rows, group, version).unwrap();
        for (name, schema) in v3["components"]["schemas"].as_object().unwrap() {
            let known = &v2["definitions"][name];
            assert_eq!(schema["description"], known["description"], "{group}/{version} {name}");
            for (property, schema) in schema["properties"].as_object().into_iter().flatten() {
                assert_eq!(schema["description"], known["properties"][property]["description"], "{name}.{property}");
            }
        }
    }
}

#[test]
fn every_v2_reference_leads_to_a_definition_and_every_kind_has_one() {
    let document = openapi::openapi_v2(&openapi::built_in());
    check_references(&document);
    for r in resources() {
        assert!(schema_of_kind(&document["definitions"], r.group, r.version, r.kind).is_some(), "{}", r.kind);
    }
}

#[test]
fn the_index_names_every_document() {
    let rows = openapi::built_in();
    let index = openapi::openapi_v3_index(&rows, |group, version| openapi::openapi_v3_hash(&rows, group, version));
    let paths = index["paths"].as_object().unwrap();
    let groups: BTreeSet<&str> = openapi::group_versions(&rows).into_iter().map(|gv| gv.0).collect();
    // A document a version and a group (the core group's is `api`), and four about the server.
    assert_eq!(paths.len(), openapi::group_versions(&rows).len() + groups.len() + 4);
    for about in ["api", "apis", "apis/apps", "version", "openid/v1/jwks", ".well-known/openid-configuration"] {
        let document = openapi::openapi_v3_about(&rows, about).unwrap();
        assert!(document["paths"][format!("/{about}/")]["get"]["operationId"].is_string(), "{about}");
        let hash = openapi::content_hash(document.to_string().as_bytes());
        assert_eq!(paths[about]["serverRelativeURL"], format!("/openapi/v3/{about}?hash={hash}"));
    }
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let again = openapi::openapi_v3(&rows, "apps", "v1").unwrap().to_string();
    assert_eq!(url, format!("/openapi/v3/apis/apps/v1?hash={}", openapi::content_hash(again.as_bytes())));
    assert!(index["paths"]["api/v1"].is_object());
}

#[test]
fn kubectl_finds_what_it_asks_before_a_dry_run_and_a_patch() {
    let rows = openapi::built_in();
    for (group, version) in openapi::group_versions(&rows) {
        let document = openapi::openapi_v3(&rows, group, version).unwrap();
        for r in resources().iter().filter(|r| (r.group, r.version) == (group, version) && r.has_verb("patch")) {
            let gvk = json!({ "group": group, "version": version, "kind": r.kind });
            let patch = document["paths"]
                .as_object()
                .unwrap()
                .values()
                .map(|p| &p["patch"])
                .find(|p| p["x-kubernetes-group-version-kind"] == gvk)
                .unwrap();
            let names: Vec<&str> =
                patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
            for wanted in ["dryRun", "fieldValidation", "fieldManager", "force"] {
                assert!(names.contains(&wanted), "{} {wanted}", r.kind);
            }
            assert_eq!(patch["x-kubernetes-action"], "patch");
            assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
        }
    }
}

#[test]
fn merge_keys_list_types_formats_and_defaults_are_marked() {
    let document = openapi::openapi_v3(&openapi::built_in(), "", "v1").unwrap();
    let schemas = &document["components"]["schemas"];
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"];
    let containers = &spec["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
    assert_eq!(spec["required"], json!(["containers"]));
    let ports = &schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["port", "protocol"]));
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"];
    assert_eq!(port["properties"]["containerPort"]["format"], "int32");
    assert_eq!(port["properties"]["protocol"]["default"], "TCP");
    assert_eq!(schemas["io.k8s.api.core.v1.Secret"]["properties"]["data"]["additionalProperties"]["format"], "byte");
    let selector = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"];
    assert_eq!(selector["x-kubernetes-map-type"], "atomic");
    assert!(schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["oneOf"].is_array());
}

#[test]
fn discovery_and_its_aggregated_form_name_the_same() {
    let rows = openapi::built_in();
    let groups = openapi::api_group_list(&rows);
    let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", "apps", "events.k8s.io"]);
    assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
    let aggregated = openapi::aggregated(&rows, false);
    assert_eq!(aggregated["apiVersion"], "apidiscovery.k8s.io/v2");
    assert_eq!(aggregated["items"].as_array().unwrap().len(), names.len());
    let mut seen = 0;
    for (items, core) in [(&aggregated["items"], false), (&openapi::aggregated(&rows, true)["items"], true)] {
        for item in items.as_array().unwrap() {
            let group = item["metadata"]["name"].as_str().unwrap_or_default();
            assert_eq!(group.is_empty(), core);
            for version in item["versions"].as_array().unwrap() {
                let list = openapi::api_resource_list(&rows, group, version["version"].as_str().unwrap()).unwrap();
                let flat = list["resources"].as_array().unwrap().len();
                let nested = version["resources"].as_array().unwrap();
                let subs: usize = nested.iter().map(|r| r["subresources"].as_array().map_or(0, Vec::len)).sum();
                assert_eq!(flat, nested.len() + subs);
                seen += nested.len();
            }
        }
    }
    assert_eq!(seen, resources().len());
    assert!(openapi::api_resource_list(&rows, "apps", "v9").is_none());
    assert!(openapi::api_group(&rows, "nobody.example").is_none());
    let autoscaling = openapi::api_group(&rows, "autoscaling").unwrap();
    assert_eq!(autoscaling["preferredVersion"]["version"], "v2");
}

#[test]
fn scale_is_announced_in_its_own_group() {
    let list = openapi::api_resource_list(&openapi::built_in(), "apps", "v1").unwrap();
    let scale = list["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
    assert_eq!(
        (&scale["group"], &scale["version"], &scale["kind"]),
        (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
    );
}

#[test]
fn the_version_is_one_that_clients_accept() {
    let version = openapi::version("abc", "2026-01-01T00:00:00Z");
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36."));
    assert!(version["platform"].as_str().unwrap().starts_with("linux/"));
}

static STATUS: &[Subresource] = &[Subresource {
    name: "status",
    group: None,
    version: None,
    kind: "CronTab",
    verbs: &["get", "patch", "update"],
    type_id: None,
}];
static CRON_TAB: Resource = Resource {
    group: "stable.example.com",
    version: "v1",
    plural: "crontabs",
    singular: "crontab",
    kind: "CronTab",
    scope: Scope::Namespaced,
    verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    short_names: &["ct"],
    categories: &["all"],
    type_id: TypeId(0),
    subresources: std::borrow::Cow::Borrowed(STATUS),
};

#[test]
fn a_custom_resource_brings_its_own_schema() {
    let schema = json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": { "cronSpec": { "type": "string" } } } } });
    let mut rows = openapi::built_in();
    rows.push(Row { resource: &CRON_TAB, schema: Some(&schema), stored: None });
    let document = openapi::openapi_v3(&rows, "stable.example.com", "v1").unwrap();
    check_references(&document);
    let schemas = &document["components"]["schemas"];
    let kind = schema_of_kind(schemas, "stable.example.com", "v1", "CronTab").unwrap();
    assert_eq!(kind["properties"]["spec"]["properties"]["cronSpec"]["type"], "string");
    assert_eq!(
        kind["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert!(schemas["com.example.stable.v1.CronTabList"].is_object());
    let path = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"];
    let patches = path["patch"]["requestBody"]["content"].as_object().unwrap();
    assert!(patches.contains_key("application/merge-patch+json"));
    assert!(!patches.contains_key("application/strategic-merge-patch+json"));
    check_references(&openapi::openapi_v2(&rows));
    assert_eq!(openapi::group_versions(&rows).last(), Some(&("stable.example.com", "v1")));
}

#[test]
fn stored_resources_name_their_storage_version() {
    let config_map = ironkeel_schema::resource("", "v1", "configmaps").unwrap();
    let scaler = ironkeel_schema::resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    let rows = [
        Row { resource: config_map, schema: None, stored: Some(("", "v1")) },
        Row { resource: scaler, schema: None, stored: Some(("autoscaling", "v2")) },
        Row::from(ironkeel_schema::resource("", "v1", "bindings").unwrap()),
    ];
    let hash = |group: &str, version: &str, at: usize| {
        openapi::api_resource_list(&rows, group, version).unwrap()["resources"][at]["storageVersionHash"].clone()
    };
    // As upstream's server tells them.
    assert_eq!(hash("", "v1", 0), "qFsyl6wFWjQ=");
    assert_eq!(hash("autoscaling", "v1", 0), "qwQve8ut294=");
    assert_eq!(hash("", "v1", 1), Value::Null);
}

#[test]
fn parameters_of_all_operations_stand_with_the_path() {
    let document = openapi::openapi_v2(&openapi::built_in());
    let path = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let names = |list: &Value| -> Vec<String> {
        let all = list.as_array().cloned().unwrap_or_default();
        all.iter()
            .map(|p| match p["$ref"].as_str() {
                Some(target) => document.pointer(target.strip_prefix('#').unwrap()).unwrap()["name"].clone(),
                None => p["name"].clone(),
            })
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&path["parameters"]), ["name", "namespace", "pretty"]);
    assert_eq!(names(&path["get"]["parameters"]), Vec::<String>::new());
    assert_eq!(names(&path["put"]["parameters"]), ["body", "dryRun", "fieldManager", "fieldValidation"]);
    assert_eq!(path["put"]["description"], "replace the specified Deployment");
    assert_eq!(path["delete"]["responses"]["202"]["description"], "Accepted");
    let collection = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["delete"];
    assert_eq!(collection["operationId"], "deleteAppsV1CollectionNamespacedDeployment");
    let exec = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"];
    assert_eq!(exec["get"]["operationId"], "connectCoreV1GetNamespacedPodExec");
    let of_exec = ["command", "container", "name", "namespace", "stderr", "stdin", "stdout", "tty"];
    assert_eq!(names(&exec["parameters"]), of_exec);
    let watch = &document["paths"]["/api/v1/watch/namespaces/{namespace}/pods/{name}"]["get"];
    assert_eq!(watch["operationId"], "watchCoreV1NamespacedPod");
    assert_eq!(document["paths"]["/apis/apps/v1/"]["get"]["operationId"], "getAppsV1APIResources");
}

#[test]
fn a_delete_answers_with_a_status_or_with_what_went() {
    let rows: Vec<Row<'_>> = resources().iter().map(Row::from).collect();
    let answering: BTreeSet<&str> =
        rows.iter().filter(|r| r.resource.answers_deleted()).map(|r| r.resource.plural).collect();
    assert_eq!(answering.len(), 19, "{answering:?}");
}

#[test]
fn exceptions_and_zero_defaults_stand_where_upstream_has_them() {
    let rows = openapi::built_in();
    let core = openapi::openapi_v3(&rows, "", "v1").unwrap();
    let type_of = |name: &str| &core["components"]["schemas"][format!("io.k8s.api.core.v1.{name}")];
    assert_eq!(type_of("Pod")["properties"]["spec"]["default"], json!({}));
    assert_eq!(type_of("Container")["properties"]["name"]["default"], "");
    assert_eq!(type_of("Container")["properties"]["image"]["default"], Value::Null);
    assert_eq!(type_of("ContainerPort")["properties"]["containerPort"]["default"], 0);
    assert_eq!(type_of("AzureDiskVolumeSource")["properties"]["kind"]["default"], "Shared");
    let unions = &type_of("SeccompProfile")["x-kubernetes-unions"][0];
    assert_eq!(unions["discriminator"], "type");
    assert_eq!(unions["fields-to-discriminateBy"], json!({ "localhostProfile": "LocalhostProfile" }));
    let claim = &type_of("PersistentVolumeSpec")["properties"]["claimRef"];
    assert_eq!(claim["x-kubernetes-map-type"], "granular");
    assert!(type_of("PodStatus")["required"].is_null());
    assert_eq!(type_of("PortStatus")["required"], json!(["port", "protocol"]));
    let v2 = openapi::openapi_v2(&rows);
    let of_v2 = |name: &str| &v2["definitions"][format!("io.k8s.api.{name}")];
    // Version 2 names no defaults.
    assert_eq!(of_v2("core.v1.ContainerPort")["properties"]["protocol"]["default"], Value::Null);
    let modes = &of_v2("resource.v1.ExactDeviceRequest")["properties"]["allocationMode"]["enum"];
    assert_eq!(*modes, json!(["All", "ExactCount"]));
    assert_eq!(of_v2("apps.v1.DeploymentSpec")["required"], json!(["selector", "template"]));
}
