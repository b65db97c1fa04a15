//! `Status` as JSON, its members in the order that upstream writes them.
//!
//! Clients print the text of an error's body as it came; some compare it. Other kinds are written
//! in the canonical order of `codec`.

use ironkeel_object::Value;

const STATUS: [&str; 8] = ["kind", "apiVersion", "metadata", "status", "message", "reason", "details", "code"];
const DETAILS: [&str; 6] = ["name", "group", "kind", "uid", "causes", "retryAfterSeconds"];
const CAUSE: [&str; 3] = ["reason", "message", "field"];

/// Whether this tree is a `v1.Status`.
pub(crate) fn is(value: &Value) -> bool {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    text("kind") == Some("Status") && text("apiVersion") == Some("v1")
}

/// Appends a Status and a line's end.
pub(crate) fn encode(status: &Value, out: &mut Vec<u8>) {
    members(status, &STATUS, out, |key, value, out| match key {
        "details" => members(value, &DETAILS, out, |key, value, out| match (key, value) {
            ("causes", Value::Array(causes)) => {
                out.push(b'[');
                for (i, cause) in causes.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    members(cause, &CAUSE, out, |_, value, out| ironkeel_codec::encode_json(value, out));
                }
                out.push(b']');
            }
            _ => ironkeel_codec::encode_json(value, out),
        }),
        _ => ironkeel_codec::encode_json(value, out),
    });
    out.push(b'\n');
}

/// The members that `order` names first, then the others.
fn members(value: &Value, order: &[&str], out: &mut Vec<u8>, write: impl Fn(&str, &Value, &mut Vec<u8>)) {
    let Value::Object(map) = value else { return ironkeel_codec::encode_json(value, out) };
    let known = order.iter().filter_map(|key| Some((*key, map.get(key)?)));
    let others = map.iter().map(|(key, value)| (key.as_ref(), value)).filter(|(key, _)| !order.contains(key));
    let mut before = b'{';
    for (key, value) in known.chain(others) {
        out.push(before);
        before = b',';
        ironkeel_codec::write_json_string(key, out);
        out.push(b':');
        write(key, value, out);
    }
    if map.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use ironkeel_registry::{ApiError, Cause, Details, Reason};

    #[test]
    fn members_stand_in_upstreams_order() {
        let cause = Cause { reason: "FieldValueInvalid".into(), message: "no".into(), field: "spec.x".into() };
        let details = Details { name: "a".into(), kind: "services".into(), causes: vec![cause], ..Details::default() };
        let error = ApiError { details: Some(Box::new(details)), ..ApiError::new(Reason::AlreadyExists, "is there") };
        let mut out = Vec::new();
        super::encode(&error.to_status(), &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"is there\",\
             \"reason\":\"AlreadyExists\",\"details\":{\"name\":\"a\",\"kind\":\"services\",\"causes\":[{\"reason\":\
             \"FieldValueInvalid\",\"message\":\"no\",\"field\":\"spec.x\"}]},\"code\":409}\n"
        );
    }
}
