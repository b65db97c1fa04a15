//! JSON: whatever is read survives being written and read again.
#![no_main]

use ironkeel_codec::{decode_json, encode_json, encode_json_pretty, parse_json};
use ironkeel_schema::type_by_name;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(value) = parse_json(data) else { return };
    for encode in [encode_json, encode_json_pretty] {
        let mut out = Vec::new();
        encode(&value, &mut out);
        // Not the values: 2.0 is written as 2, and -0.0 as -0, which is read as 0.
        let value = parse_json(&out).expect("own JSON is read");
        let mut out = Vec::new();
        encode(&value, &mut out);
        let mut again = Vec::new();
        encode(&parse_json(&out).expect("own JSON is read"), &mut again);
        assert_eq!(again, out);
    }
    for name in ["core/v1.Pod", "apiextensions/v1.CustomResourceDefinition"] {
        let type_id = type_by_name(name);
        let Ok((first, _)) = decode_json(data, type_id) else { continue };
        let mut out = Vec::new();
        encode_json(&first, &mut out);
        let (second, problems) = decode_json(&out, type_id).expect("what conforms is read again");
        assert!(problems.is_empty(), "{problems:?}");
        let mut again = Vec::new();
        encode_json(&second, &mut again);
        assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&out), "conforming twice changes nothing");
    }
});
