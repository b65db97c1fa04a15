//! Typed objects of k8s-openapi through every format: serde_json is the witness.

#![allow(clippy::unwrap_used)]

use ironkeel_codec::{
    decode_json, decode_protobuf, decode_yaml, encode_json, encode_protobuf, encode_yaml, parse_json,
};
use ironkeel_object::Value;
use ironkeel_schema::{TypeId, package_of, type_by_name, type_id_for_kind};
use serde_json::json;

fn type_of(api_version: &str, kind: &str) -> Option<TypeId> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    type_id_for_kind(group, version, kind)
}

fn json_of(value: &Value) -> serde_json::Value {
    let mut out = Vec::new();
    encode_json(value, &mut out);
    serde_json::from_slice(&out).unwrap()
}

/// The object survives JSON, YAML and protobuf unchanged, and is canonical as given.
fn check(object: serde_json::Value) {
    let bytes = serde_json::to_vec(&object).unwrap();
    let kind = object["kind"].as_str().unwrap();
    let type_id = type_of(object["apiVersion"].as_str().unwrap(), kind).unwrap();
    let (value, problems) = decode_json(&bytes, Some(type_id)).unwrap();
    assert_eq!(problems, [], "{kind}");
    assert_eq!(json_of(&value), object, "{kind} through JSON");

    let mut yaml = Vec::new();
    encode_yaml(&value, &mut yaml);
    let (from_yaml, problems) = decode_yaml(&yaml, Some(type_id)).unwrap();
    assert_eq!(problems, [], "{kind}");
    assert_eq!(from_yaml, value, "{kind} through YAML:\n{}", String::from_utf8_lossy(&yaml));
    let witness: serde_json::Value = serde_yaml_like(&yaml);
    assert_eq!(witness, object, "{kind}");

    let protobuf = encode_protobuf(&value, type_id);
    let from_protobuf = decode_protobuf(&protobuf, &type_of).unwrap();
    assert_subset(&object, &json_of(&from_protobuf), kind);
    assert_eq!(encode_protobuf(&from_protobuf, type_id), protobuf, "{kind}: protobuf is a fixed point");
}

fn serde_yaml_like(yaml: &[u8]) -> serde_json::Value {
    json_of(&decode_yaml(yaml, None).unwrap().0)
}

/// Protobuf gives back what was there; besides that only empty structs and zero scalars.
fn assert_subset(expected: &serde_json::Value, actual: &serde_json::Value, path: &str) {
    match (expected, actual) {
        (serde_json::Value::Object(e), serde_json::Value::Object(a)) => {
            for (k, v) in e {
                assert_subset(v, a.get(k).unwrap_or(&serde_json::Value::Null), &format!("{path}.{k}"));
            }
            for (k, v) in a {
                assert!(e.contains_key(k) || is_zero(v), "{path}.{k} appeared: {v}");
            }
        }
        (serde_json::Value::Array(e), serde_json::Value::Array(a)) => {
            assert_eq!(e.len(), a.len(), "{path}");
            e.iter().zip(a).for_each(|(e, a)| assert_subset(e, a, path));
        }
        (e, a) => assert_eq!(e, a, "{path}"),
    }
}

fn is_zero(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(m) => m.values().all(is_zero),
        serde_json::Value::Array(a) => a.is_empty(),
        serde_json::Value::String(s) => s.is_empty() || s == "0" || s == "0s",
        serde_json::Value::Number(n) => n.as_f64() == Some(0.0),
        serde_json::Value::Bool(b) => !b,
        serde_json::Value::Null => true,
    }
}

#[test]
fn objects_of_many_kinds_survive_every_format() {
    check(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b",
        "labels": {"x": "y", "a.b/c": ""}, "creationTimestamp": "2026-01-02T03:04:05Z"},
        "data": {"k": "multi\nline\n", "yes": "no", "n": "1.5", "odd": "\u{1}\"\\\u{2028}<&>", "lead": "  x\ny"},
        "binaryData": {"b": "AAECAw=="}, "immutable": false}));
    check(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "aGk="}, "type": "Opaque"}),
    );
    check(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "managedFields": [{"manager": "m",
        "operation": "Update", "apiVersion": "v1", "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}}}}}}],
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "F", "value": "x"},
            {"name": "G", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}],
        "livenessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 5},
        "readinessProbe": {"tcpSocket": {"port": 8080}},
        "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}]}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "10Mi"}}, {"name": "h", "hostPath": {"path": "/x", "type": ""}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3607}},
                {"configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}], "defaultMode": 420}}],
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        "nodeSelector": {"a": "b"}, "terminationGracePeriodSeconds": 0, "hostNetwork": true,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
            [{"matchExpressions": [{"key": "k", "operator": "In", "values": ["a", "b"]}]}]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "startTime": "2026-01-02T03:04:05Z",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}],
        "containerStatuses": [{"name": "c", "ready": true, "restartCount": 3, "image": "i", "imageID": "id",
            "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}, "lastState": {"terminated": {"exitCode": 137}}}]}}));
    check(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 0,
        "selector": {"matchLabels": {"a": "b"}}, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}}}));
    check(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"name": "x",
        "port": 80, "targetPort": 8080, "protocol": "TCP"}], "selector": {"a": "b"}, "clusterIP": "None",
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}}));
    check(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24",
        "taints": [{"key": "k", "effect": "NoSchedule"}]}, "status": {"capacity": {"cpu": "2", "memory": "16Gi"},
        "images": [{"names": ["a:b"], "sizeBytes": 5_000_000_000i64}]}}));
    check(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec":
        {"holderIdentity": "h", "leaseDurationSeconds": 40, "renewTime": "2026-01-02T03:04:05.000006Z"}}));
    check(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]}]}));
    check(
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
        "spec": {"request": "AAAA", "signerName": "s", "usages": ["client auth"], "username": "u",
        "extra": {"k": ["a", "b"]}, "groups": ["g"]}}),
    );
    check(json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "c"},
        "data": {"spec": {"any": [1, 2.5, null]}}, "revision": 3}));
    check(
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x.y"},
        "spec": {"group": "y", "scope": "Namespaced", "names": {"plural": "x", "kind": "X"}, "versions": [{"name": "v1",
        "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "a": {"type": "array", "items": {"type": "string", "maxLength": 5}}, "n": {"type": "number", "minimum": 0.5},
            "m": {"type": "object", "additionalProperties": {"type": "string"}}, "o": {"additionalProperties": true},
            "d": {"default": {"x": 1}, "enum": ["a", 1]}}, "x-kubernetes-preserve-unknown-fields": true}}}]}}),
    );
    check(json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"},
        "source": {"component": "kubelet"}, "reason": "r", "message": "m: \"x\" # y", "type": "Normal", "count": 2,
        "eventTime": "2026-01-02T03:04:05.000006Z", "reportingComponent": "k", "reportingInstance": "i"}));
    check(
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *",
        "suspend": false, "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "c",
        "command": ["sh", "-c", "echo 'a: b' # c"]}], "restartPolicy": "Never"}}}}}}),
    );
    check(
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "e"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod"}}],
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}]}),
    );
    check(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"}, "spec": {
        "podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "ingress": [{"ports": [{"port": "x"}]}]}}));
}

/// A value of every shape of a type, down to a depth: no field of any served kind is lost.
fn sample(shape: &ironkeel_schema::Shape, depth: usize) -> Option<Value> {
    use ironkeel_schema::Shape;
    Some(match shape {
        Shape::Bool => true.into(),
        Shape::Int32 | Shape::Int64 => 7.into(),
        Shape::Float64 => 1.5.into(),
        Shape::String | Shape::Enum(_) => "text".into(),
        Shape::Bytes => "AQID".into(),
        Shape::Quantity => "1500m".into(),
        Shape::IntOrString => "50%".into(),
        Shape::Time => "2026-01-02T03:04:05Z".into(),
        Shape::MicroTime => "2026-01-02T03:04:05.000006Z".into(),
        Shape::Duration => "1h0m0s".into(),
        Shape::FieldsV1 | Shape::RawExtension | Shape::Json => ironkeel_object::object!({"a": [1, "b"]}),
        Shape::Any => return None,
        Shape::SchemaOrArray(id) | Shape::SchemaOrBool(id) | Shape::SchemaOrStringArray(id) | Shape::Struct(id) => {
            // An embedded object's apiVersion and kind have no place in protobuf.
            let travels = |name: &str| !id.get().has_type_meta || !matches!(name, "apiVersion" | "kind");
            let fields = id.get().fields.iter().filter(|f| depth > 0 && travels(f.name));
            Value::Object(fields.filter_map(|f| Some((f.name, sample(&f.shape, depth - 1)?))).collect())
        }
        Shape::List(inner) => Value::Array(vec![sample(inner, depth)?, sample(inner, depth)?]),
        Shape::StringItems => ironkeel_object::object!(["a", "b"]),
        Shape::Map(inner) => Value::Object([("k", sample(inner, depth)?)].into_iter().collect()),
    })
}

#[test]
fn every_field_of_every_served_kind_survives_json_and_protobuf() {
    for resource in ironkeel_schema::resources() {
        let type_id = resource.type_id;
        let mut value = sample(&ironkeel_schema::Shape::Struct(type_id), 5).unwrap();
        *value.slot(&["apiVersion"]) = resource.api_version().into();
        *value.slot(&["kind"]) = resource.kind.into();
        let mut json = Vec::new();
        encode_json(&value, &mut json);
        let (decoded, problems) = decode_json(&json, Some(type_id)).unwrap();
        assert_eq!(problems, [], "{}", resource.kind);
        assert_eq!(decoded, value, "{}", resource.kind);
        let bytes = encode_protobuf(&value, type_id);
        let back = decode_protobuf(&bytes, &type_of).unwrap_or_else(|e| panic!("{}: {e}", resource.kind));
        assert_subset(&json_of(&value), &json_of(&back), resource.kind);
        assert_eq!(encode_protobuf(&back, type_id), bytes, "{}", resource.kind);
    }
}

#[test]
fn typed_views_read_what_we_write() {
    use k8s_openapi::api::core::v1::Pod;
    let text = br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","creationTimestamp":null},
        "spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":0.5,"memory":"1024Mi"}}}],"nodeName":""}}"#;
    let (value, _) = decode_json(text, type_by_name("core/v1.Pod")).unwrap();
    let mut out = Vec::new();
    encode_json(&value, &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"500m","memory":"1Gi"}}}]}}"#
    );
    let pod: Pod = serde_json::from_slice(&out).unwrap();
    let requests = pod.spec.unwrap().containers[0].resources.clone().unwrap().requests.unwrap();
    assert_eq!(requests["cpu"].0, "500m");
    assert_eq!(package_of("apps"), "apps");
}

#[test]
fn floats_are_written_as_go_does() {
    for (text, written) in [
        ("1.0", "1"),
        ("0.1", "0.1"),
        ("1e3", "1000"),
        ("1e21", "1e+21"),
        ("1e20", "100000000000000000000"),
        ("123456.789", "123456.789"),
        ("1e-7", "1e-7"),
        ("0.000001", "0.000001"),
        ("1.5e-9", "1.5e-9"),
        ("-2.5e100", "-2.5e+100"),
        ("18446744073709551616", "18446744073709552000"),
    ] {
        let mut out = Vec::new();
        encode_json(&parse_json(text.as_bytes()).unwrap(), &mut out);
        assert_eq!(String::from_utf8_lossy(&out), written, "{text}");
    }
}

#[test]
fn yaml_with_names_too_long_for_simple_keys_is_read_again() {
    let long = "x".repeat(2000);
    let value = ironkeel_object::object!({"outer": [1]});
    let mut map = ironkeel_object::Map::new();
    map.insert(long.clone(), value.clone());
    map.insert(format!("{long}y"), ironkeel_object::object!([1, 2]));
    map.insert(format!("{long}z"), "text");
    let value = ironkeel_object::object!({"a": (ironkeel_object::Value::Object(map)), "b": 1});
    let mut out = Vec::new();
    ironkeel_codec::encode_yaml(&value, &mut out);
    assert_eq!(ironkeel_codec::decode_yaml(&out, None).expect("own YAML is read").0, value);
}
