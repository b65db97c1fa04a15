//! Timestamps and durations as CEL bounds and writes them.

use ironkeel_object::{Timestamp, parse_go_duration};

const NANOS_PER_SECOND: i128 = 1_000_000_000;
/// 0001-01-01T00:00:00Z.
const MIN_SECONDS: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z.
const MAX_SECONDS: i64 = 253_402_300_799;

/// Nanoseconds since 1970.
pub(crate) fn nanos(t: Timestamp) -> i128 {
    i128::from(t.seconds) * NANOS_PER_SECOND + i128::from(t.nanos)
}

/// Moves a moment; `None` outside the years 1 to 9999.
pub(crate) fn shift(t: Timestamp, by: i128) -> Option<Timestamp> {
    let total = nanos(t) + by;
    let seconds = i64::try_from(total.div_euclid(NANOS_PER_SECOND)).ok()?;
    let nanos = total.rem_euclid(NANOS_PER_SECOND) as u32;
    (MIN_SECONDS..=MAX_SECONDS).contains(&seconds).then_some(Timestamp { seconds, nanos })
}

/// RFC 3339 with as many digits of the fraction as there are.
pub(crate) fn format(t: Timestamp) -> String {
    let mut text = t.to_rfc3339();
    if t.nanos > 0 {
        text.pop();
        let digits = format!("{:09}", t.nanos);
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
        text.push('Z');
    }
    text
}

/// `90s`, `1.5s`: seconds only.
pub(crate) fn format_duration(nanos: i64) -> String {
    let total = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let (whole, part) = (total / 1_000_000_000, total % 1_000_000_000);
    if part == 0 {
        return format!("{sign}{whole}s");
    }
    let digits = format!("{part:09}");
    format!("{sign}{whole}.{}s", digits.trim_end_matches('0'))
}

/// A duration of `format: duration`: Go's text, or a number and a unit up to weeks as strfmt reads.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    if let Some(nanos) = parse_go_duration(text) {
        return Some(nanos);
    }
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(number_end);
    let seconds: f64 = match unit.trim() {
        "d" | "day" | "days" => 86_400.0,
        "w" | "wk" | "week" | "weeks" => 604_800.0,
        "h" | "hr" | "hour" | "hours" => 3_600.0,
        "min" | "mins" | "minute" | "minutes" => 60.0,
        "sec" | "secs" | "second" | "seconds" => 1.0,
        "milli" | "millis" | "millisecond" | "milliseconds" => 1e-3,
        "micro" | "micros" | "microsecond" | "microseconds" => 1e-6,
        "nano" | "nanos" | "nanosecond" | "nanoseconds" => 1e-9,
        _ => return None,
    };
    let nanos = number.parse::<f64>().ok()? * seconds * 1e9;
    (nanos.is_finite() && nanos.abs() < 9.2e18).then_some(nanos as i64)
}
