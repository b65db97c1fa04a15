//! The options of a Pod's log and port-forward, read from the query as upstream's parameter codec reads them, and
//! checked. Where a request goes is [`crate::targets`]'.

use ironkeel_kinds::{FieldError, FieldErrorKind, Path};
use ironkeel_object::Timestamp;
use ironkeel_registry::ApiError;

use crate::context::Context;
use crate::write::go_integer;

/// 400 or 422 about options that are not understood.
pub(crate) fn check(c: &Context) -> Result<(), ApiError> {
    match c.info.subresource.as_str() {
        "log" => log(c),
        "portforward" => ports(c),
        _ => Ok(()),
    }
}

fn ports(c: &Context) -> Result<(), ApiError> {
    let all = c.query.all("ports");
    for port in all.iter().flat_map(|ports| ports.split(',')) {
        if !port.bytes().all(|b| b.is_ascii_digit()) || port.is_empty() {
            return Err(ApiError::bad_request(format!(
                "cannot convert to []int32: strconv.ParseUint: parsing {port:?}: invalid syntax"
            )));
        }
    }
    Ok(())
}

fn log(c: &Context) -> Result<(), ApiError> {
    let number = |key: &str| c.query.get(key).map(|text| go_integer(&text)).transpose();
    let (since, tail, limit) = (number("sinceSeconds")?, number("tailLines")?, number("limitBytes")?);
    let since_time = c.query.get("sinceTime").filter(|t| !t.is_empty() && t != "null");
    if let Some(text) = &since_time
        && Timestamp::parse(text).is_none()
    {
        return Err(ApiError::bad_request(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
        )));
    }
    let mut errors = Vec::new();
    let mut wrong = |field: &str, kind, message: String| {
        errors.push(FieldError { path: Path::new(field), kind, message });
    };
    if let Some(n) = tail.filter(|n| *n < 0) {
        let why = format!("Invalid value: {n}: must be greater than or equal to 0");
        wrong("tailLines", FieldErrorKind::Invalid, why);
    }
    if let Some(n) = limit.filter(|n| *n < 1) {
        wrong("limitBytes", FieldErrorKind::Invalid, format!("Invalid value: {n}: must be greater than 0"));
    }
    if since.is_some() && since_time.is_some() {
        let why = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified";
        wrong("[]", FieldErrorKind::Forbidden, why.to_owned());
    } else if let Some(n) = since.filter(|n| *n < 1) {
        wrong("sinceSeconds", FieldErrorKind::Invalid, format!("Invalid value: {n}: must be greater than 0"));
    }
    // The gate PodLogsQuerySplitStreams is off.
    if c.query.get("stream").is_some() {
        wrong("stream", FieldErrorKind::Forbidden, "Forbidden: may not be specified".to_owned());
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "PodLogOptions", &c.info.name, &errors)) }
}
