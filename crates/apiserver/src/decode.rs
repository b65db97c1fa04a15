//! Reading bodies into objects of an expected kind.

use bytes::Bytes;
use ironkeel_codec::{DecodeError, Format};
use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::{Gvk, ObjectMeta, Value};
use ironkeel_registry::{ApiError, FieldValidation, Row};
use ironkeel_schema::{TypeId, type_id_for_kind};

use crate::context::Context;
use crate::negotiate::body_format;

/// Reads the request's body as an object of this kind, in whatever format it is.
pub(crate) fn object(c: &Context, api_version: &str, kind: &str, type_id: TypeId) -> Result<Value, ApiError> {
    let format = body_format(&c.parts.headers, false)?;
    let validation = c.field_validation()?;
    let (mut value, problems) = bytes(&c.body, format, api_version, kind, type_id)?;
    check_kind(&value, api_version, kind, &c.body)?;
    judge(c, validation, problems, api_version, kind)?;
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
    let kind = row.kind_name();
    let format = body_format(&c.parts.headers, true)?;
    let malformed = |e: DecodeError| {
        let unread = if format == Format::Yaml { "" } else { UNREAD };
        unrecognized(kind, &format!("{unread}{e}"), &c.body)
    };
    let (mut value, found) = match format {
        Format::Yaml => ironkeel_codec::decode_yaml(&c.body, None).map_err(malformed)?,
        _ => ironkeel_codec::decode_json(&c.body, None).map_err(malformed)?,
    };
    if value.is_null() {
        value = Value::object();
    }
    if !matches!(value, Value::Object(_)) {
        let found = value.type_name();
        let why = format!("{UNREAD}json: cannot unmarshal {found} into Go value of type {TYPE_META}");
        return Err(unrecognized(kind, &why, &c.body));
    }
    check_custom_kind(&value, &row.api_version, kind, &c.body)?;
    value.set_gvk(&row.api_version, row.kind_name());
    let mut problems: Vec<String> = found.iter().map(ToString::to_string).collect();
    problems.extend(row.conform(&mut value)?);
    judge(c, validation, problems, &row.api_version, row.kind_name())?;
    Ok(value)
}

/// What strict decoding found, as the client wants to hear of it.
fn judge(
    c: &Context,
    validation: FieldValidation,
    problems: Vec<String>,
    api_version: &str,
    kind: &str,
) -> Result<(), ApiError> {
    validation.judge(problems, &c.warnings).map_err(|e| ApiError {
        message: format!(
            "{kind} in version \"{}\" cannot be handled as a {kind}: {}",
            version_of(api_version),
            e.message
        ),
        ..e
    })
}

fn version_of(api_version: &str) -> &str {
    api_version.rsplit('/').next().unwrap_or(api_version)
}

/// Most bytes of a body that an error shows.
const SUMMARY_BYTES: usize = 30;

/// The beginning of a body: as it is where it looks like JSON, in hexadecimal digits otherwise.
fn summary(body: &[u8]) -> String {
    let (shown, more) = match body.get(..SUMMARY_BYTES) {
        Some(shown) if body.len() > SUMMARY_BYTES => (shown, " ..."),
        _ => (body, ""),
    };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => format!("{}{more}", shown.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}

/// 400: nothing in the body says what it is.
fn unrecognized(kind: &str, why: &str, body: &[u8]) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(body)
    ))
}

/// Before what is wrong with a body's JSON.
const UNREAD: &str = "couldn't get version/kind; json parse error: ";
/// How Go shows the type that version and kind are read into.
const TYPE_META: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
                         \"json:\\\"kind,omitempty\\\"\" }";

/// Reads bytes as an object of this kind; what strict decoding found comes with it.
pub(crate) fn bytes(
    body: &Bytes,
    format: Format,
    api_version: &str,
    kind: &str,
    type_id: TypeId,
) -> Result<(Value, Vec<String>), ApiError> {
    let version = version_of(api_version);
    unread(body, format, kind, type_id).map_err(|e| match e {
        Unread::Unrecognized(why) => unrecognized(kind, &why, body),
        Unread::Unfit(why) => {
            ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
        }
    })
}

/// Reads bytes as an object of this kind; errors say what is wrong alone.
pub(crate) fn plain(
    body: &Bytes,
    format: Format,
    kind: &str,
    type_id: TypeId,
) -> Result<(Value, Vec<String>), ApiError> {
    unread(body, format, kind, type_id)
        .map_err(|(Unread::Unrecognized(why) | Unread::Unfit(why))| ApiError::bad_request(why))
}

/// Why bytes are no object of a kind.
enum Unread {
    /// Nothing says what they are.
    Unrecognized(String),
    /// They are of another form.
    Unfit(String),
}

fn unread(body: &Bytes, format: Format, kind: &str, type_id: TypeId) -> Result<(Value, Vec<String>), Unread> {
    let of_format = |e: &DecodeError| match (format, e) {
        (Format::Json, _) => format!("{UNREAD}{e}"),
        (Format::Protobuf, _) if body.is_empty() => "empty data".to_owned(),
        (Format::Protobuf, _) => {
            let why = e.to_string();
            let why = why.strip_prefix("protobuf: ").unwrap_or(&why);
            // Go shows the bytes.
            why.replace("expected prefix", "expected prefix [107 56 115 0]")
        }
        (Format::Yaml, _) => e.to_string(),
    };
    // Version and kind are read first, on their own.
    let read_first = |e: &DecodeError| match e {
        DecodeError::Type { found, target, expected } if format != Format::Protobuf => {
            let found = found.split(' ').next().unwrap_or_default();
            if target == "value" && expected.ends_with(&format!(".{kind}")) {
                return Some(format!("{UNREAD}json: cannot unmarshal {found} into Go value of type {TYPE_META}"));
            }
            let member = target.strip_prefix(&format!("struct field {kind}."))?;
            matches!(member, "kind" | "apiVersion").then(|| {
                format!("{UNREAD}json: cannot unmarshal {found} into Go struct field .{member} of type {expected}")
            })
        }
        _ => None,
    };
    // As if nothing stood between the braces.
    if format != Format::Protobuf && body.trim_ascii() == b"null" {
        return Ok((Value::object(), Vec::new()));
    }
    let malformed = |e: DecodeError| match e {
        e if read_first(&e).is_some() => Unread::Unrecognized(read_first(&e).unwrap_or_default()),
        DecodeError::Type { .. }
        | DecodeError::Quantity(_)
        | DecodeError::Time { .. }
        | DecodeError::Duration { .. }
        | DecodeError::Base64 { .. } => Unread::Unfit(e.to_string()),
        e => Unread::Unrecognized(of_format(&e)),
    };
    let (value, problems) = match format {
        Format::Json => ironkeel_codec::decode_json(body, Some(type_id)).map_err(malformed)?,
        Format::Yaml => match ironkeel_codec::decode_yaml(body, Some(type_id)) {
            // A document with nothing in it is an object with nothing in it.
            Err(DecodeError::Type { found, target, .. }) if found == "null" && target == "value" => {
                return Ok((Value::object(), Vec::new()));
            }
            read => read.map_err(malformed)?,
        },
        Format::Protobuf => {
            let resolve = |api_version: &str, kind: &str| {
                let gvk = Gvk::new(api_version, kind);
                type_id_for_kind(&gvk.group, &gvk.version, &gvk.kind)
            };
            (ironkeel_codec::decode_protobuf(body, &resolve).map_err(malformed)?, Vec::new())
        }
    };
    if !matches!(value, Value::Object(_)) {
        let found = value.type_name();
        let why = format!("{UNREAD}json: cannot unmarshal {found} into Go value of type {TYPE_META}");
        return Err(Unread::Unrecognized(why));
    }
    Ok((value, problems.iter().map(ToString::to_string).collect()))
}

/// The Go package of a group's internal types.
fn internal_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        other => other.split('.').next().unwrap_or(other),
    }
}

/// Kinds that every group version knows.
const EVERYWHERE: &[&str] = &[
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "ListOptions",
    "PatchOptions",
    "Status",
    "UpdateOptions",
    "WatchEvent",
];

/// The body must be of the kind that the path is about; absent names are filled in.
fn check_kind(value: &Value, api_version: &str, kind: &str, body: &[u8]) -> Result<(), ApiError> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    let found_version = text("apiVersion").unwrap_or(api_version);
    let found_kind = text("kind").unwrap_or(kind);
    if (found_version, found_kind) == (api_version, kind) {
        return Ok(());
    }
    if found_version.matches('/').count() > 1 {
        return Err(unrecognized(kind, &format!("unexpected GroupVersion string: {found_version}"), body));
    }
    let (expected, found) = (Gvk::new(api_version, kind), Gvk::new(found_version, found_kind));
    let cannot = |why: String| {
        ApiError::bad_request(format!(
            "{found_kind} in version {:?} cannot be handled as a {kind}: {why}",
            found.version
        ))
    };
    // The definitions of APIs, and of who serves them, have a scheme each.
    let own_scheme = |group: &str| matches!(group, "apiextensions.k8s.io" | "apiregistration.k8s.io");
    let known = found_kind.strip_suffix("List").unwrap_or(found_kind);
    let registered = type_id_for_kind(&found.group, &found.version, known).is_some()
        && (!(own_scheme(&expected.group) || own_scheme(&found.group)) || expected.group == found.group)
        || EVERYWHERE.contains(&found_kind) && found_version == api_version;
    if !registered {
        return Err(cannot(format!(
            "no kind {found_kind:?} is registered for version {found_version:?} in scheme \"pkg/runtime/scheme.go:111\""
        )));
    }
    if found_kind == kind {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({api_version})"
        )));
    }
    let package = internal_package(&expected.group);
    Err(cannot(format!("converting ({}.{found_kind}) to ({package}.{kind}): unknown conversion", found.version)))
}

/// A custom resource's body must be of the definition's kind, and say so.
fn check_custom_kind(value: &Value, api_version: &str, kind: &str, body: &[u8]) -> Result<(), ApiError> {
    for member in ["apiVersion", "kind"] {
        if let Some(other) = value.get(member).filter(|v| !matches!(v, Value::Null | Value::String(_))) {
            let found = other.type_name();
            let why = format!("{UNREAD}json: cannot unmarshal {found} into Go struct field .{member} of type string");
            return Err(unrecognized(kind, &why, body));
        }
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (found_version, found_kind) = (text("apiVersion"), text("kind"));
    if found_version.matches('/').count() > 1 {
        return Err(unrecognized(kind, &format!("unexpected GroupVersion string: {found_version}"), body));
    }
    if found_kind.is_empty() {
        let why = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(body));
        return Err(unrecognized(kind, &why, body));
    }
    if found_version != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({api_version})"
        )));
    }
    if found_kind != kind {
        let error = FieldError {
            path: Path::new("kind"),
            kind: FieldErrorKind::Invalid,
            message: format!("Invalid value: {found_kind:?}: must be {kind}"),
        };
        return Err(ApiError::invalid(&Gvk::new(api_version, kind).group, found_kind, value.name(), &[error]));
    }
    Ok(())
}
