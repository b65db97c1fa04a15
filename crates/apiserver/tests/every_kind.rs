//! Every served kind: create, get, list, watch, update, the four patches, delete.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use ironkeel_schema::{Resource, Scope, resources};
use serde_json::{Value, json};
use support::{Cluster, Http, cluster};

fn pod_spec() -> Value {
    json!({"containers": [{"name": "c", "image": "i"}]})
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": pod_spec()})
}

fn workload() -> Value {
    json!({"selector": {"matchLabels": {"a": "b"}}, "template": template()})
}

/// What a kind needs besides metadata.
fn minimal(r: &Resource) -> Value {
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
    let policy_rules = json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]});
    match r.kind {
        "Pod" => json!({"spec": pod_spec()}),
        "ReplicationController" => json!({"spec": {"selector": {"a": "b"}, "template": template()}}),
        "PodTemplate" => json!({"template": template()}),
        "Deployment" | "ReplicaSet" | "DaemonSet" => json!({"spec": workload()}),
        "StatefulSet" => {
            let mut spec = workload();
            spec["serviceName"] = "s".into();
            json!({"spec": spec})
        }
        "ControllerRevision" => json!({"revision": 1, "data": {"x": 1}}),
        "Job" => json!({"spec": job}),
        "CronJob" => json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job}}}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "Endpoints" => json!({"subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}]}),
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.7"]}], "ports": []}),
        "Event" if r.group.is_empty() => {
            json!({"involvedObject": {"namespace": "default", "kind": "Pod", "name": "p"}, "reason": "R", "type": "Normal"})
        }
        "Event" => {
            json!({"eventTime": "2026-01-02T03:04:05.000000Z", "regarding": {"namespace": "default", "kind": "Pod", "name": "p"}, "reason": "R", "type": "Normal", "action": "A", "reportingController": "x.io/c", "reportingInstance": "i"})
        }
        "LimitRange" => json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}}),
        "ResourceQuota" => json!({"spec": {"hard": {"pods": "100"}}}),
        "PersistentVolumeClaim" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "PersistentVolume" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp/x"}}})
        }
        "APIService" => {
            json!({"spec": {"group": "g.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1, "service": {"name": "s", "namespace": "default"}, "insecureSkipTLSVerify": true}})
        }
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}})
        }
        "CertificateSigningRequest" => {
            json!({"spec": {"request": csr(), "signerName": "example.com/s", "usages": ["digital signature"]}})
        }
        "ClusterTrustBundle" => json!({"spec": {"trustBundle": certificate()}}),
        "PodCertificateRequest" => json!({"spec": {
            "signerName": "example.com/s", "podName": "p", "podUID": "7e1c2d8a-0000-4000-8000-000000000001",
            "serviceAccountName": "a", "serviceAccountUID": "7e1c2d8a-0000-4000-8000-000000000002",
            "nodeName": "n", "nodeUID": "7e1c2d8a-0000-4000-8000-000000000003",
            "maxExpirationSeconds": 3600, "stubPKCS10Request": stub_csr(),
        }}),
        "Ingress" => json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        "IngressClass" => json!({"spec": {"controller": "example.com/c"}}),
        "IPAddress" => json!({"spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "default"}}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.250.0.0/24"]}}),
        "NetworkPolicy" => json!({"spec": {"podSelector": {}}}),
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}),
        "ClusterRole" | "Role" => json!({"rules": []}),
        "ClusterRoleBinding" | "RoleBinding" => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": []})
        }
        "CSIDriver" => json!({"spec": {}}),
        "CSINode" => json!({"spec": {"drivers": []}}),
        "CSIStorageCapacity" => json!({"storageClassName": "sc"}),
        "StorageClass" => json!({"provisioner": "example.com/p"}),
        "VolumeAttachment" => {
            json!({"spec": {"attacher": "a.io", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}})
        }
        "VolumeAttributesClass" => json!({"driverName": "d.io", "parameters": {"a": "b"}}),
        "MutatingAdmissionPolicy" => {
            json!({"spec": {"matchConstraints": policy_rules, "reinvocationPolicy": "Never", "failurePolicy": "Fail", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'test', path: '/kind', value: 'Pod'}]"}}]}})
        }
        "MutatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "p"}}),
        "ValidatingAdmissionPolicy" => {
            json!({"spec": {"matchConstraints": policy_rules, "validations": [{"expression": "true"}]}})
        }
        "ValidatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => json!({"webhooks": []}),
        "CustomResourceDefinition" => {
            json!({"spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}, "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
        }
        "PriorityClass" => json!({"value": 5}),
        "PodGroup" => json!({"spec": {"schedulingPolicy": {"basic": {}}}}),
        "Workload" => json!({"spec": {"podGroupTemplates": [{"name": "g", "schedulingPolicy": {"basic": {}}}]}}),
        "LeaseCandidate" => {
            json!({"spec": {"leaseName": "l", "binaryVersion": "1.36.0", "emulationVersion": "1.36.0", "strategy": "OldestEmulationVersion"}})
        }
        "RuntimeClass" => json!({"handler": "h"}),
        "DeviceClass" => json!({"spec": {}}),
        "ResourceClaim" => json!({"spec": {"devices": {}}}),
        "ResourceClaimTemplate" => json!({"spec": {"spec": {"devices": {}}}}),
        "ResourceSlice" => {
            json!({"spec": {"driver": "d.io", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})
        }
        "DeviceTaintRule" => json!({"spec": {"taint": {"key": "k", "effect": "NoSchedule"}}}),
        "ResourcePoolStatusRequest" => json!({"spec": {"driver": "d.io"}}),
        "FlowSchema" => json!({"spec": {"priorityLevelConfiguration": {"name": "x"}, "matchingPrecedence": 500}}),
        "PriorityLevelConfiguration" => {
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}})
        }
        "StorageVersionMigration" => json!({"spec": {"resource": {"group": "apps", "resource": "deployments"}}}),
        _ => json!({}),
    }
}

fn certificate() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.self_signed(&key).unwrap().pem()
}

fn csr() -> String {
    use base64::Engine;
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    base64::engine::general_purpose::STANDARD.encode(pem)
}

/// The same as DER, which is what a PodCertificateRequest wants.
fn stub_csr() -> String {
    use base64::Engine;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    base64::engine::general_purpose::STANDARD.encode(request.der())
}

fn name_of(r: &Resource) -> &'static str {
    match r.kind {
        "APIService" => "v1.g.io",
        "StorageVersion" => "apps.deployments",
        "CustomResourceDefinition" => "widgets.example.com",
        "IPAddress" => "192.0.2.9",
        "CSIDriver" => "example.com",
        _ => "x",
    }
}

fn collection(r: &Resource) -> String {
    let root =
        if r.group.is_empty() { format!("/api/{}", r.version) } else { format!("/apis/{}/{}", r.group, r.version) };
    let namespace = if r.scope == Scope::Namespaced { "/namespaces/default" } else { "" };
    format!("{root}{namespace}/{}", r.plural)
}

/// Whether the server itself writes what it has found out to the status.
fn followed(r: &Resource) -> bool {
    ["apiservices", "customresourcedefinitions", "flowschemas", "validatingadmissionpolicies"].contains(&r.plural)
}

/// Whether it has done so.
fn settled(object: &Value) -> bool {
    let of_type = |kind: &str, status: Option<&str>| {
        object["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == kind && status.is_none_or(|s| c["status"] == s)))
    };
    of_type("Established", Some("True"))
        || of_type("Available", None)
        || of_type("Dangling", None)
        || object["status"]["observedGeneration"] == object["metadata"]["generation"]
            && object["metadata"]["generation"] != Value::Null
}

async fn round(http: &Http, r: &Resource) -> Result<(), String> {
    let label = format!("{}/{}/{}", r.group, r.version, r.plural);
    let fail =
        |step: &str, a: &support::Answer| format!("{label} {step}: {} {}", a.status, String::from_utf8_lossy(&a.bytes));
    let path = collection(r);
    let mut body = minimal(r);
    body["apiVersion"] = r.api_version().into();
    body["kind"] = r.kind.into();
    body["metadata"] = json!({"name": name_of(r)});
    let mut watch = http.watch(&format!("{path}?watch=true&resourceVersion={}", revision(http).await)).await;
    let a = http.post(&path, &body).await;
    if a.status != 201 {
        return Err(fail("create", &a));
    }
    let mut made = a.json();
    let mut kinds = Vec::new();
    if followed(r) {
        while !settled(&made) || kinds.is_empty() {
            let (kind, object) = watch.event().await;
            if object["metadata"]["name"] == name_of(r) {
                kinds.push(kind);
                made = object;
            }
        }
    }
    let one = format!("{path}/{}", name_of(r));
    let a = http.get(&one).await;
    if a.status != 200 || a.json() != made {
        return Err(fail("get", &a));
    }
    let a = http.get(&path).await;
    let found = a.json();
    // Items of a list leave their type to it.
    let mut item = made.clone();
    item.as_object_mut().unwrap().retain(|name, _| name != "kind" && name != "apiVersion");
    if found["kind"] != format!("{}List", r.kind) || !found["items"].as_array().unwrap().contains(&item) {
        return Err(fail("list", &a));
    }
    let a = http.put(&one, &made).await;
    if a.status != 200 || a.json()["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"] {
        return Err(fail("no-op update", &a));
    }
    let patches = [
        ("application/merge-patch+json", json!({"metadata": {"labels": {"merge": "1"}}})),
        ("application/strategic-merge-patch+json", json!({"metadata": {"labels": {"strategic": "1"}}})),
        ("application/json-patch+json", json!([{"op": "add", "path": "/metadata/labels/json", "value": "1"}])),
    ];
    for (kind, patch) in patches {
        let a = http.patch(&one, kind, &patch).await;
        if a.status != 200 {
            return Err(fail(kind, &a));
        }
    }
    let apply = json!({"apiVersion": r.api_version(), "kind": r.kind, "metadata": {"name": name_of(r), "labels": {"apply": "1"}}});
    let a = http.patch(&format!("{one}?fieldManager=m&force=true"), "application/apply-patch+yaml", &apply).await;
    if a.status != 200 {
        return Err(fail("apply", &a));
    }
    let labels = a.json()["metadata"]["labels"].clone();
    for key in ["merge", "strategic", "json", "apply"] {
        if labels[key] != "1" {
            return Err(format!("{label}: label {key} is missing in {labels}"));
        }
    }
    let a = http.send(http::Method::GET, &one, &[("accept", "application/vnd.kubernetes.protobuf")], "").await;
    if a.status != 200 || !a.bytes.starts_with(b"k8s\0") {
        return Err(fail("get protobuf", &a));
    }
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let a = http.send(http::Method::GET, &path, &accept, "").await;
    if a.status != 200 || a.json()["kind"] != "Table" || a.json()["rows"].as_array().is_none_or(Vec::is_empty) {
        return Err(fail("table", &a));
    }
    let a = http.delete(&format!("{one}?gracePeriodSeconds=0")).await;
    if a.status != 200 {
        return Err(fail("delete", &a));
    }
    let kept = http.get(&one).await;
    if kept.status == 200 {
        // Finalizers hold it (claims, volumes, namespaces): take them away.
        if kept.json()["metadata"]["deletionTimestamp"].is_null() {
            return Err(fail("delete did not mark", &kept));
        }
        http.patch(&one, "application/merge-patch+json", &json!({"metadata": {"finalizers": null}})).await;
        if r.kind == "Namespace" {
            let mut object = http.get(&one).await.json();
            object["spec"]["finalizers"] = json!([]);
            http.put(&format!("{one}/finalize"), &object).await;
        }
    }
    let a = http.get(&one).await;
    if a.status != 404 {
        return Err(fail("get after delete", &a));
    }
    loop {
        let (kind, object) = watch.event().await;
        if object["metadata"]["name"] != name_of(r) {
            continue;
        }
        kinds.push(kind);
        if kinds.last().is_some_and(|k| k == "DELETED") {
            break;
        }
    }
    if kinds[0] != "ADDED" || kinds.len() < 6 {
        return Err(format!("{label} watch: {kinds:?}"));
    }
    Ok(())
}

async fn revision(http: &Http) -> String {
    let list = http.get("/api/v1/namespaces").await.json();
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// A pod needs its namespace's account.
async fn account(c: &Cluster) {
    let body = json!({"metadata": {"name": "default"}});
    c.admin().post("/api/v1/namespaces/default/serviceaccounts", &body).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stored_kind_lives_a_whole_life() {
    let c = cluster().await;
    account(&c).await;
    let http = c.admin();
    let mut failures = Vec::new();
    let mut count = 0;
    for r in resources().iter().filter(|r| r.has_verb("create") && r.has_verb("get")) {
        count += 1;
        if let Err(e) = round(&http, r).await {
            failures.push(e);
        }
    }
    assert!(count > 80, "{count}");
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}
