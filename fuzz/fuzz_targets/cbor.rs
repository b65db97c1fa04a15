//! CBOR: whatever is read survives being written and read again.
#![no_main]

use ironkeel_codec::{decode_cbor, encode_cbor};
use ironkeel_schema::type_by_name;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok((value, _)) = decode_cbor(data, None) else { return };
    let mut out = Vec::new();
    encode_cbor(&value, None, &mut out);
    assert_eq!(decode_cbor(&out, None).expect("own CBOR is read").0, value);
    let secret = type_by_name("core/v1.Secret");
    let Ok((value, _)) = decode_cbor(data, secret) else { return };
    let mut out = Vec::new();
    encode_cbor(&value, secret, &mut out);
    decode_cbor(&out, secret).expect("what conforms is read again");
});
