//! CBOR: what is written is read again, and what has no place in a tree is refused.

#![allow(clippy::unwrap_used)]

use ironkeel_codec::{DecodeError, decode_cbor, decode_json, encode_cbor, encode_cbor_item, encode_json};
use ironkeel_object::{Value, object};
use ironkeel_schema::type_by_name;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn read(hex: &str) -> Result<Value, DecodeError> {
    decode_cbor(&bytes(hex), None).map(|(value, _)| value)
}

#[test]
fn every_value_survives_a_round_trip() {
    let value = object!({"a": null, "b": true, "i": [0, 23, 24, 255, 256, 65536, 4294967296i64, (-1), (-25), (-300)],
        "f": [1.5, 0.1, (-0.0), 65504.0, 0.00006103515625, 5.960464477539063e-8, 3.4028234663852886e38, 1e300],
        "s": "ünï", "o": {"deep": [{}, []]}});
    let mut out = Vec::new();
    encode_cbor(&value, None, &mut out);
    assert_eq!(out[..3], [0xd9, 0xd9, 0xf7]);
    assert_eq!(decode_cbor(&out, None).unwrap().0, value);
}

#[test]
fn bytes_are_bytes_behind_the_tag_for_base64() {
    let secret = type_by_name("core/v1.Secret").unwrap();
    let json =
        br#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"s"},"data":{"k":"AAEC"},"stringData":{"k":"AAEC"}}"#;
    let (value, _) = decode_json(json, Some(secret)).unwrap();
    let mut out = Vec::new();
    encode_cbor_item(&value, Some(secret), &mut out);
    let tagged = [0xd6, 0x43, 0, 1, 2];
    assert_eq!(out.windows(5).filter(|w| *w == tagged).count(), 1);
    let (again, problems) = decode_cbor(&out, Some(secret)).unwrap();
    assert!(problems.is_empty());
    let mut text = Vec::new();
    encode_json(&again, &mut text);
    assert_eq!(text, json);
}

#[test]
fn text_byte_and_indefinite_strings_are_all_read() {
    assert_eq!(read("a1616101").unwrap(), object!({"a": 1}));
    assert_eq!(read("a1416101").unwrap(), object!({"a": 1}));
    assert_eq!(read("bf61619f0102ffff").unwrap(), object!({"a": [1, 2]}));
    assert_eq!(read("7f61616162ff").unwrap(), "ab".into());
    assert_eq!(read("d9d9f783f4f5f6").unwrap(), object!([false, true, null]));
    assert_eq!(read("f93e00").unwrap(), 1.5.into());
    assert_eq!(read("d6430001ff").unwrap(), "AAH/".into());
}

#[test]
fn what_has_no_place_in_a_tree_is_refused() {
    for (hex, why) in [
        ("", "unexpected EOF"),
        ("a1", "unexpected EOF"),
        ("9b7fffffffffffffff", "unexpected EOF"),
        ("5b7fffffffffffffff", "unexpected EOF"),
        ("a2616101616102", "duplicate map key"),
        ("a10102", "map keys must be strings"),
        ("f97e00", "NaN"),
        ("fb7ff0000000000000", "infinity"),
        ("1bffffffffffffffff", "64 signed bits"),
        ("c249010000000000000000", "bignums"),
        ("0102", "extraneous data"),
        ("61ff", "invalid UTF-8"),
        ("ff", "invalid additional information"),
        ("f8ff", "simple value"),
    ] {
        let error = read(hex).unwrap_err().to_string();
        assert!(error.contains(why), "{hex}: {error}");
    }
    assert_eq!(read(&"81".repeat(2000)).unwrap_err(), DecodeError::TooDeep);
    assert_eq!(read(&"c6".repeat(2000)).unwrap_err(), DecodeError::TooDeep);
}
