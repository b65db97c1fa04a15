//! How cells say things: ages, lists, selectors, images. Upstream's printers are the model.

use ironkeel_object::Value;

use crate::TableContext;

/// Seconds since 1970 of an RFC 3339 text.
pub(crate) fn unix(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|t| t.as_second())
}

/// A duration with two or three significant figures (`5m12s`, `3d4h`).
pub(crate) fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |big: i64, b: &str, small: i64, s: &str| {
        if small == 0 { format!("{big}{b}") } else { format!("{big}{b}{small}{s}") }
    };
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 120 => format!("{s}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(hours / 24, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

/// How long ago a time was; `<unknown>` where there is none.
pub(crate) fn since(time: Option<&str>, context: &TableContext) -> String {
    match time.and_then(unix) {
        Some(t) => human_duration(context.now_unix - t),
        None => "<unknown>".into(),
    }
}

/// The Age cell.
pub(crate) fn age(object: &Value, context: &TableContext) -> Value {
    since(object.at(&["metadata", "creationTimestamp"]).and_then(Value::as_str), context).into()
}

/// Names and images of a pod template's containers, each joined by commas.
pub(crate) fn containers_and_images(pod_spec: Option<&Value>) -> (Value, Value) {
    let list = pod_spec.map(|s| s.items_at(&["containers"])).unwrap_or_default();
    let join = |field: &str| list.iter().filter_map(|c| c.str_at(&[field])).collect::<Vec<_>>().join(",");
    (join("name").into(), join("image").into())
}

/// `or` in the place of an empty text.
pub(crate) fn non_empty(text: String, or: &str) -> Value {
    if text.is_empty() { or.into() } else { text.into() }
}

/// A string of the object, or `or`.
pub(crate) fn text(object: &Value, path: &[&str], or: &str) -> Value {
    non_empty(object.str_at(path).unwrap_or_default().to_owned(), or)
}

/// An integer of the object; 0 where absent.
pub(crate) fn number(object: &Value, path: &[&str]) -> i64 {
    object.i64_at(path).unwrap_or(0)
}

/// Scalars as text: quantities and IntOrStrings may be numbers or strings.
pub(crate) fn scalar(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Null) | None => String::new(),
        Some(v) => crate::error::shown(v),
    }
}
