//! Reading bodies into objects of an expected kind.

use bytes::Bytes;
use ironkeel_codec::{DecodeError, Format};
use ironkeel_object::{Gvk, ObjectMeta, Value};
use ironkeel_registry::{ApiError, Row};
use ironkeel_schema::{TypeId, type_id_for_kind};

use crate::context::Context;
use crate::negotiate::body_format;

/// Reads the request's body as an object of this kind, in whatever format it is.
pub(crate) fn object(c: &Context, api_version: &str, kind: &str, type_id: TypeId) -> Result<Value, ApiError> {
    let format = body_format(&c.parts.headers, false)?;
    let validation = c.field_validation()?;
    let (mut value, problems) = bytes(&c.body, format, api_version, kind, type_id)?;
    validation.judge(problems, &c.warnings)?;
    check_kind(&value, api_version, kind)?;
    value.set_gvk(api_version, kind);
    Ok(value)
}

/// Reads the request's body as an object of a row: a custom resource's by its own schema.
pub(crate) fn of_row(c: &Context, row: &Row) -> Result<Value, ApiError> {
    let _step = ironkeel_trace::span("decode");
    if row.kind.custom.is_none() {
        return object(c, &row.api_version, row.kind_name(), row.kind.resource.type_id);
    }
    let validation = c.field_validation()?;
    let malformed = |e: DecodeError| {
        let kind = row.kind_name();
        ApiError::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {e}"))
    };
    let (mut value, found) = match body_format(&c.parts.headers, true)? {
        Format::Yaml => ironkeel_codec::decode_yaml(&c.body, None).map_err(malformed)?,
        _ => ironkeel_codec::decode_json(&c.body, None).map_err(malformed)?,
    };
    if !matches!(value, Value::Object(_)) {
        let kind = row.kind_name();
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): json: cannot unmarshal {} into Go value of type \
             map[string]interface {{}}",
            value.type_name()
        )));
    }
    check_kind(&value, &row.api_version, row.kind_name())?;
    value.set_gvk(&row.api_version, row.kind_name());
    let mut problems: Vec<String> = found.iter().map(ToString::to_string).collect();
    problems.extend(row.conform(&mut value)?);
    validation.judge(problems, &c.warnings)?;
    Ok(value)
}

/// Reads bytes as an object of this kind; what strict decoding found comes with it.
pub(crate) fn bytes(
    body: &Bytes,
    format: Format,
    api_version: &str,
    kind: &str,
    type_id: TypeId,
) -> Result<(Value, Vec<String>), ApiError> {
    let version = api_version.rsplit('/').next().unwrap_or(api_version);
    let refuse = |e: DecodeError| {
        ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {e}"))
    };
    let malformed = |e: DecodeError| match e {
        DecodeError::Type { .. }
        | DecodeError::Quantity(_)
        | DecodeError::Time { .. }
        | DecodeError::Duration { .. }
        | DecodeError::Base64 { .. } => refuse(e),
        e => ApiError::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {e}")),
    };
    let (value, problems) = match format {
        Format::Json => ironkeel_codec::decode_json(body, Some(type_id)).map_err(malformed)?,
        Format::Yaml => ironkeel_codec::decode_yaml(body, Some(type_id)).map_err(malformed)?,
        Format::Protobuf => {
            let resolve = |api_version: &str, kind: &str| {
                let gvk = Gvk::new(api_version, kind);
                type_id_for_kind(&gvk.group, &gvk.version, &gvk.kind)
            };
            (ironkeel_codec::decode_protobuf(body, &resolve).map_err(malformed)?, Vec::new())
        }
    };
    if !matches!(value, Value::Object(_)) {
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: json: cannot unmarshal {} into Go value of type {kind}",
            value.type_name()
        )));
    }
    Ok((value, problems.iter().map(ToString::to_string).collect()))
}

/// The body must be of the kind that the path is about; absent names are filled in.
fn check_kind(value: &Value, api_version: &str, kind: &str) -> Result<(), ApiError> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (found_version, found_kind) = (text("apiVersion"), text("kind"));
    if !found_version.is_empty() && found_version != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !found_kind.is_empty() && found_kind != kind {
        let gvk = Gvk::new(api_version, kind);
        return Err(ApiError::bad_request(format!(
            "{found_kind} in version \"{}\" cannot be handled as a {kind}: converting ({found_version}.{found_kind}) to ({api_version}.{kind}): unknown conversion",
            gvk.version
        )));
    }
    Ok(())
}
