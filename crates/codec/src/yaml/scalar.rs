//! What a plain YAML scalar means: the YAML 1.1 rules that upstream's parser keeps.

use ironkeel_object::{Number, Value};

/// Resolves a plain (unquoted, untagged) scalar.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            // A lone y or n is text, as in upstream's fork of the parser.
            return if text.len() == 1 { text.into() } else { true.into() };
        }
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return if text.len() == 1 { text.into() } else { false.into() };
        }
        _ => {}
    }
    let numeric_start = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if !numeric_start {
        return text.into();
    }
    number(text).map_or_else(|| text.into(), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let plain = text.replace('_', "");
    if let Some(i) = integer(&plain) {
        return Some(Number::Int(i));
    }
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    // Rust's parser also reads `inf`, `nan` and `infinity`; JSON has none of them.
    let float_form = unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        && unsigned.bytes().any(|b| b.is_ascii_digit());
    if !float_form {
        return None;
    }
    plain.parse::<f64>().ok().filter(|f| f.is_finite()).map(Number::Float)
}

fn integer(plain: &str) -> Option<i64> {
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain),
    };
    if !digits.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let radix = |prefix: &str, radix| digits.strip_prefix(prefix).map(|d| i128::from_str_radix(d, radix).ok());
    let magnitude = radix("0x", 16)
        .or_else(|| radix("0b", 2))
        .or_else(|| radix("0o", 8))
        .or_else(|| if digits.len() > 1 { radix("0", 8) } else { None })
        .unwrap_or_else(|| digits.parse::<i128>().ok());
    let magnitude = magnitude?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_upstream_takes_them_for() {
        for (text, value) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("yes", true.into()),
            ("off", false.into()),
            ("y", "y".into()),
            ("12", 12.into()),
            ("-12", (-12).into()),
            ("0644", 420.into()),
            ("0o644", 420.into()),
            ("0x1F", 31.into()),
            ("1_000", 1000.into()),
            ("1.5", 1.5.into()),
            ("1e3", 1000.0.into()),
            (".5", 0.5.into()),
            ("1.2.3", "1.2.3".into()),
            ("10.0.0.1", "10.0.0.1".into()),
            ("-", "-".into()),
            ("0x", "0x".into()),
            ("089", 89.0.into()),
            ("1m", "1m".into()),
            (".inf", ".inf".into()),
            ("2024-01-01", "2024-01-01".into()),
            ("18446744073709551616", 18446744073709551616.0.into()),
        ] {
            assert_eq!(resolve(text), value, "{text}");
        }
    }
}
