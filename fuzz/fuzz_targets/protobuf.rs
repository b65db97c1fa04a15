//! Kubernetes protobuf: whatever is read survives being written and read again.
#![no_main]

use ironkeel_codec::{decode_protobuf, encode_protobuf};
use ironkeel_object::{Gvk, ObjectMeta};
use ironkeel_schema::{TypeId, type_id_for_kind};
use libfuzzer_sys::fuzz_target;

fn resolve(api_version: &str, kind: &str) -> Option<TypeId> {
    let gvk = Gvk::new(api_version, kind);
    type_id_for_kind(&gvk.group, &gvk.version, &gvk.kind)
}

fuzz_target!(|data: &[u8]| {
    // The envelope is given, so that the fuzzer works on the message.
    let mut bytes = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".to_vec();
    let mut length = data.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(data);
    for bytes in [bytes.as_slice(), data] {
        let Ok(value) = decode_protobuf(bytes, &resolve) else { continue };
        let gvk = value.gvk();
        let Some(type_id) = type_id_for_kind(&gvk.group, &gvk.version, &gvk.kind) else { continue };
        let out = encode_protobuf(&value, type_id);
        let again = decode_protobuf(&out, &resolve).expect("own protobuf is read");
        assert_eq!(encode_protobuf(&again, type_id), out);
    }
});
