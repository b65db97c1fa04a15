//! Typed decoding: errors in upstream's words, what is dropped, golden protobuf, hostile input.

#![allow(clippy::unwrap_used)]

use ironkeel_codec::{
    DecodeError, MAX_NESTING, ProtobufList, decode_json, decode_protobuf, decode_stored_json, decode_yaml, encode_json,
    encode_json_pretty, encode_protobuf, encode_protobuf_message, encode_watch_event_protobuf, frame_protobuf,
    parse_json,
};
use ironkeel_object::{Value, object};
use ironkeel_schema::{TypeId, type_by_name, type_id_for_kind};

fn type_of(api_version: &str, kind: &str) -> Option<TypeId> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    type_id_for_kind(group, version, kind)
}

fn text(value: &Value) -> String {
    let mut out = Vec::new();
    encode_json(value, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn wrong_types_are_told_in_upstreams_words() {
    for (kind, json, message) in [
        (
            "apps/v1.Deployment",
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps/v1.Deployment",
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps/v1.Deployment",
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "core/v1.Pod",
            r#"{"spec":{"containers":[{"env":[{"value":1}]}]}}"#,
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            "core/v1.Pod",
            r#"{"spec":{"containers":{}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "core/v1.Pod",
            r#"{"metadata":{"labels":{"a":true}}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "core/v1.Pod",
            r#"{"spec":{"restartPolicy":[]}}"#,
            "json: cannot unmarshal array into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            "core/v1.Pod",
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"1x"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "core/v1.Pod",
            r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
            r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
        ),
        ("core/v1.Secret", r#"{"data":{"a":"b!=="}}"#, "illegal base64 data at input byte 1"),
        ("core/v1.Pod", "{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
        ("core/v1.Pod", "{\"a\" 1}", "invalid character '1' after object key"),
        ("core/v1.Pod", "{\"a\":1", "unexpected end of JSON input"),
        ("core/v1.Pod", "{} x", "invalid character 'x' after top-level value"),
        ("core/v1.Pod", "{\"a\":01}", "invalid character '1' after object key:value pair"),
    ] {
        let error = decode_json(json.as_bytes(), type_by_name(kind)).unwrap_err();
        assert_eq!(error.to_string(), message, "{json}");
    }
}

#[test]
fn problems_stand_in_the_order_of_the_document() {
    let text = r#"{"spec":{"zzz":1,"replicas":1,"replicas":2,"aaa":[{"b":1}],"selector":{"matchLabels":{"x":"1","x":"2"}}},"first":"\u0041"}"#;
    let (_, problems) = decode_json(text.as_bytes(), type_of("apps/v1", "Deployment")).unwrap();
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            r#"unknown field "spec.zzz""#,
            r#"duplicate field "spec.replicas""#,
            r#"unknown field "spec.aaa""#,
            r#"duplicate field "spec.selector.matchLabels.x""#,
            r#"unknown field "first""#,
        ]
    );
}

#[test]
fn unknown_and_duplicate_fields_are_reported_with_their_path() {
    let json =
        br#"{"spec":{"replicas":1,"replicas":2,"foo":3,"template":{"spec":{"containers":[{},{"bar":1}]}}},"Kind":""}"#;
    let (value, problems) = decode_json(json, type_by_name("apps/v1.Deployment")).unwrap();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            r#"duplicate field "spec.replicas""#,
            r#"unknown field "spec.foo""#,
            r#"unknown field "spec.template.spec.containers[1].bar""#,
            r#"unknown field "Kind""#
        ]
    );
    assert_eq!(text(&value), r#"{"spec":{"replicas":2,"template":{"spec":{"containers":[{},{}]}}}}"#);
    let stored = decode_stored_json(json, type_by_name("apps/v1.Deployment")).unwrap();
    assert_eq!(stored["spec"]["foo"], 3.into(), "nothing is checked again");
    let (value, problems) = decode_json(br#"{"a":{"b":1,"b":2},"kind":"X"}"#, None).unwrap();
    assert_eq!(
        (text(&value).as_str(), problems[0].to_string().as_str()),
        (r#"{"kind":"X","a":{"b":2}}"#, r#"duplicate field "a.b""#)
    );
}

#[test]
fn nulls_and_optional_zeros_are_absent() {
    let json = br#"{"metadata":{"name":"a","labels":{},"annotations":null,"managedFields":[]},
        "spec":{"hostNetwork":false,"terminationGracePeriodSeconds":0,"nodeName":"","containers":[null],"volumes":[]},"status":{}}"#;
    let (value, _) = decode_json(json, type_by_name("core/v1.Pod")).unwrap();
    assert_eq!(
        text(&value),
        r#"{"metadata":{"managedFields":[],"name":"a"},"spec":{"containers":[{}],"terminationGracePeriodSeconds":0},"status":{}}"#
    );
}

#[test]
fn json_strings_are_read_and_written() {
    let value = parse_json(br#""a\u00e9\ud83d\ude00\ud800x\/\b\f\n\r\t\"\\""#).unwrap();
    assert_eq!(value.as_str().unwrap(), "aé😀\u{fffd}x/\u{8}\u{c}\n\r\t\"\\");
    assert_eq!(text(&value), "\"aé😀\u{fffd}x/\\b\\f\\n\\r\\t\\\"\\\\\"");
    let mut out = Vec::new();
    encode_json_pretty(&object!({"a": [1, {}], "b": {"c": null}}), &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": {\n    \"c\": null\n  }\n}"
    );
}

#[test]
fn yaml_is_read_with_anchors_merges_and_documents() {
    let yaml = b"# c\n---\na: &x {k: 1, l: two}\nb:\n  <<: *x\n  l: 'yes'\nc: *x\n1: |\n  text\n  more\non: no\n---\n";
    let (value, problems) = decode_yaml(yaml, None).unwrap();
    assert_eq!(problems, []);
    assert_eq!(
        text(&value),
        r#"{"1":"text\nmore\n","a":{"k":1,"l":"two"},"b":{"k":1,"l":"yes"},"c":{"k":1,"l":"two"},"true":false}"#
    );
    let (_, problems) = decode_yaml(b"a:\n  - b: 1\n    b: 2\n", None).unwrap();
    assert_eq!(problems[0].to_string(), "yaml: unmarshal errors:\n  line 3: key \"b\" already set in map");
    // What follows the first document is not read.
    for more in ["---\nb: 2\n", "---\nb: [", "...\n]"] {
        let text = format!("a: 1\n{more}");
        assert_eq!(decode_yaml(text.as_bytes(), None).unwrap().0, object!({"a": 1}), "{text}");
    }
    assert!(decode_yaml(b"---\n---\na: 1\n", None).unwrap().0.is_null());
    assert!(decode_yaml(b"a: [1\n", None).unwrap_err().to_string().starts_with("yaml: line "));
    assert!(decode_yaml(b"a: *b\n", None).is_err());
    let (pod, problems) =
        decode_yaml(b"spec:\n  replicas: 0x10\n  foo: 1\n", type_by_name("apps/v1.Deployment")).unwrap();
    assert_eq!((text(&pod).as_str(), problems.len()), (r#"{"spec":{"replicas":16}}"#, 1));
}

#[test]
fn yaml_bombs_are_refused() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        let previous = format!("*a{}", i - 1);
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![previous; 9].join(","));
    }
    assert_eq!(decode_yaml(bomb.as_bytes(), None).unwrap_err(), DecodeError::YamlAliases);
    let deep = format!("a: {}", "[".repeat(5000));
    assert!(decode_yaml(deep.as_bytes(), None).is_err());
}

#[test]
fn protobuf_has_upstreams_bytes() {
    let map = object!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let id = type_by_name("core/v1.ConfigMap").unwrap();
    let mut expected = b"k8s\0".to_vec();
    expected.extend(b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap"); // typeMeta
    expected.extend(b"\x12\x1b"); // raw
    expected.extend(b"\x0a\x11\x0a\x01a\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00"); // metadata
    expected.extend(b"\x12\x06\x0a\x01k\x12\x01v"); // data
    expected.extend(b"\x1a\x00\x22\x00"); // contentEncoding, contentType
    assert_eq!(encode_protobuf(&map, id), expected);
    assert_eq!(decode_protobuf(&expected, &type_of).unwrap(), map);
}

#[test]
fn protobuf_lists_and_watch_events_are_put_together_from_items() {
    let id = type_by_name("core/v1.ConfigMap").unwrap();
    let items: Vec<Vec<u8>> = ["a", "b"]
        .iter()
        .map(|name| {
            let mut out = Vec::new();
            let data = "x".repeat(300);
            encode_protobuf_message(&object!({"metadata": {"name": (*name)}, "data": {"k": data}}), id, &mut out);
            out
        })
        .collect();
    let metadata = object!({"resourceVersion": "7"});
    let list = ProtobufList::new("v1", "ConfigMapList", Some(&metadata), items.iter().map(Vec::len));
    let mut bytes = list.head().to_vec();
    for item in &items {
        ProtobufList::item_head(item.len(), &mut bytes);
        bytes.extend(item);
    }
    bytes.extend(ProtobufList::tail());
    let value = decode_protobuf(&bytes, &type_of).unwrap();
    assert_eq!(value.str_at(&["metadata", "resourceVersion"]), Some("7"));
    assert_eq!(value["items"][1]["metadata"]["name"], "b".into());
    assert_eq!(encode_protobuf(&value, type_by_name("core/v1.ConfigMapList").unwrap()), bytes);

    let event = encode_watch_event_protobuf("ADDED", b"k8s\0x");
    assert_eq!(event, b"\x0a\x05ADDED\x12\x07\x0a\x05k8s\0x");
    assert_eq!(frame_protobuf(&event)[..4], [0, 0, 0, 16]);
}

#[test]
fn hostile_input_is_an_error_and_never_a_panic() {
    for open in ["[", "{\"a\":"] {
        assert_eq!(parse_json(open.repeat(100_000).as_bytes()).unwrap_err(), DecodeError::TooDeep);
    }
    let fits = "[".repeat(MAX_NESTING) + &"]".repeat(MAX_NESTING);
    assert!(parse_json(fits.as_bytes()).is_ok());
    assert!(matches!(parse_json(b"\"\xff\""), Err(DecodeError::Utf8 { offset: 1 })));
    assert!(matches!(parse_json(b"1e999"), Err(DecodeError::NumberRange { .. })));
    assert!(parse_json(b"").is_err() && parse_json(b"-").is_err() && parse_json(b"\"\\u12").is_err());

    let id = type_by_name("apiextensions/v1.CustomResourceDefinition").unwrap();
    let mut schema = object!({"type": "string"});
    for _ in 0..40 {
        schema = object!({ "properties": {"a": (schema)} });
    }
    let crd = object!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": (schema)}}]}});
    let bytes = encode_protobuf(&crd, id);
    assert!(decode_protobuf(&bytes, &type_of).is_ok());
    for cut in 0..bytes.len() {
        // Whatever comes out, it is an answer.
        let _ = decode_protobuf(&bytes[..cut], &type_of);
        let mut flipped = bytes.clone();
        flipped[cut] ^= 0xff;
        let _ = decode_protobuf(&flipped, &type_of);
    }
    // A length of 2^63 is not believed.
    let huge = b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f";
    assert_eq!(decode_protobuf(huge, &type_of).unwrap_err(), DecodeError::Protobuf("unexpected EOF"));
    assert!(matches!(decode_protobuf(b"k8s\0", &type_of), Err(DecodeError::UnknownKind { .. })));
    let json = text(&crd);
    for cut in 0..json.len() {
        assert!(parse_json(&json.as_bytes()[..cut]).is_err());
        let _ = decode_yaml(&json.as_bytes()[..cut], None);
    }
}
