//! YAML: nothing panics or grows without bound, and what is read survives being written and read again.
#![no_main]

use ironkeel_codec::{decode_yaml, encode_json, encode_yaml, parse_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok((value, _)) = decode_yaml(data, None) else { return };
    // Not the value itself: 1.0 is written as 1, and -0.0 as -0, which is read as 0.
    let mut json = Vec::new();
    encode_json(&value, &mut json);
    let value = parse_json(&json).expect("own JSON is read");
    let mut out = Vec::new();
    encode_yaml(&value, &mut out);
    let (again, problems) =
        decode_yaml(&out, None).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out)));
    assert!(problems.is_empty());
    let mut text = Vec::new();
    encode_yaml(&again, &mut text);
    assert_eq!(String::from_utf8_lossy(&text), String::from_utf8_lossy(&out));
});
