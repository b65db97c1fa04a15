//! Input that was made to break a decoder: each case was found by a fuzzer, or is the worst that fits
//! into a request's body.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ironkeel_codec::{decode_json, decode_yaml, encode_yaml};
use ironkeel_object::Value;
use ironkeel_schema::type_by_name;

/// Time in which an unoptimized build must be through with the most that a request's body holds; what
/// grows with the square of its input takes minutes.
const PATIENCE: Duration = Duration::from_secs(20);

#[track_caller]
fn in_time<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    assert!(begun.elapsed() < PATIENCE, "{what} took {:?}", begun.elapsed());
    result
}

#[test]
fn a_text_alone_is_not_taken_for_the_documents_end() {
    for text in ["... &=\n\n'", "---\n", "a\n...\nb", "%TAG\n---", "... a", "..."] {
        let mut named = ironkeel_object::Map::new();
        named.insert(text, "x");
        for value in [Value::from(text), Value::Object(named)] {
            let mut out = Vec::new();
            encode_yaml(&value, &mut out);
            let (again, _) = decode_yaml(&out, None).unwrap();
            assert_eq!(again, value, "{}", String::from_utf8_lossy(&out));
        }
    }
}

#[test]
fn many_anchors_and_aliases_are_found_without_a_search() {
    let mut text = String::new();
    for i in 0..90_000 {
        writeln!(text, "- &a{i} 1").unwrap();
    }
    for _ in 0..90_000 {
        text.push_str("- *a89999\n");
    }
    let (value, _) = in_time("aliases", || decode_yaml(text.as_bytes(), None).unwrap());
    assert!(matches!(value, Value::Array(elements) if elements.len() == 180_000));
}

#[test]
fn a_merge_into_a_large_object_moves_its_members_once() {
    let mut text = String::from("x: &x\n");
    for i in 0..40_000 {
        writeln!(text, "  a{i}: ").unwrap();
    }
    text.push_str("y:\n  <<: *x\n");
    for i in 0..200_000 {
        writeln!(text, "  z{i}: ").unwrap();
    }
    let (value, _) = in_time("a merge", || decode_yaml(text.as_bytes(), None).unwrap());
    let Value::Object(members) = value else { panic!("an object") };
    assert!(matches!(members.get("y"), Some(Value::Object(y)) if y.len() == 240_000));
}

#[test]
fn problems_below_a_long_name_are_noted_in_bounds() {
    let twice: String = (0..100_000).map(|i| format!(r#","a{i}":1,"a{i}":2"#)).collect();
    let long = "n".repeat(500_000);
    let schema = format!(r#"{{"{long}":{{"type":"object"{twice}}}}}"#);
    let body = format!(
        r#"{{"spec":{{"versions":[{{"name":"v1","schema":{{"openAPIV3Schema":{{"properties":{schema}}}}}}}]}}}}"#
    );
    let type_id = type_by_name("apiextensions/v1.CustomResourceDefinition");
    for decode in [decode_json, decode_yaml] {
        let (_, problems) = in_time("problems", || decode(body.as_bytes(), type_id).unwrap());
        assert!(!problems.is_empty());
        assert!(problems.iter().map(|p| p.path.len()).sum::<usize>() < 8 << 20);
    }
}
