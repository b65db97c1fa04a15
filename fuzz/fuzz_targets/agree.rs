//! One object in four encodings: what JSON says of a built-in type, protobuf, CBOR and YAML say too. The first
//! byte chooses the type.
#![no_main]

use ironkeel_codec::{
    decode_cbor, decode_json, decode_protobuf, decode_yaml, encode_cbor, encode_json, encode_protobuf, encode_yaml,
};
use ironkeel_object::{Gvk, Value};
use ironkeel_schema::{TypeId, type_by_name, type_id_for_kind};
use libfuzzer_sys::fuzz_target;

const TYPES: &[(&str, &str, &str)] = &[
    ("core/v1.Pod", "v1", "Pod"),
    ("core/v1.Service", "v1", "Service"),
    ("core/v1.Secret", "v1", "Secret"),
    ("core/v1.Event", "v1", "Event"),
    ("core/v1.PersistentVolume", "v1", "PersistentVolume"),
    ("apps/v1.Deployment", "apps/v1", "Deployment"),
    ("rbac/v1.ClusterRole", "rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("networking/v1.Ingress", "networking.k8s.io/v1", "Ingress"),
    ("autoscaling/v2.HorizontalPodAutoscaler", "autoscaling/v2", "HorizontalPodAutoscaler"),
    ("apiextensions/v1.CustomResourceDefinition", "apiextensions.k8s.io/v1", "CustomResourceDefinition"),
];

fn resolve(api_version: &str, kind: &str) -> Option<TypeId> {
    let gvk = Gvk::new(api_version, kind);
    type_id_for_kind(&gvk.group, &gvk.version, &gvk.kind)
}

fn json(value: &Value) -> String {
    let mut out = Vec::new();
    encode_json(value, &mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let (name, api_version, kind) = TYPES[usize::from(*first) % TYPES.len()];
    let Some(type_id) = type_by_name(name) else { panic!("no type {name}") };
    let Ok((mut value, _)) = decode_json(rest, Some(type_id)) else { return };
    let Value::Object(members) = &mut value else { return };
    members.insert("apiVersion", api_version);
    members.insert("kind", kind);
    // Protobuf cannot tell an absent list from an empty one, nor an absent text from an empty one: what it makes of the
    // object is the common ground.
    let ground = decode_protobuf(&encode_protobuf(&value, type_id), &resolve).expect("own protobuf is read");
    let text = json(&ground);
    let again = decode_protobuf(&encode_protobuf(&ground, type_id), &resolve).expect("own protobuf is read");
    assert_eq!(json(&again), text, "protobuf twice");
    let (again, problems) = decode_json(text.as_bytes(), Some(type_id)).expect("own JSON is read");
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(json(&again), text, "JSON after protobuf");
    let mut out = Vec::new();
    encode_cbor(&ground, Some(type_id), &mut out);
    let (again, problems) = decode_cbor(&out, Some(type_id)).expect("own CBOR is read");
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(json(&again), text, "CBOR after protobuf");
    let mut out = Vec::new();
    encode_yaml(&ground, &mut out);
    let (again, problems) = decode_yaml(&out, Some(type_id)).expect("own YAML is read");
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(json(&again), text, "YAML after protobuf");
});
