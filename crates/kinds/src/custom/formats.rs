//! `format` of strings: those that upstream checks; others constrain nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether text is of a format; `None` for a format that is not checked.
pub(crate) fn check(format: &str, text: &str) -> Option<bool> {
    let hex = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_hexdigit());
    Some(match format {
        "date-time" | "datetime" => date_time(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => duration(text),
        "byte" => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.contains('/') && text.parse::<ipnet::IpNet>().is_ok(),
        "mac" => mac(text),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some(b'3')),
        "uuid4" => uuid(text, Some(b'4')),
        "uuid5" => uuid(text, Some(b'5')),
        "bsonobjectid" => text.len() == 24 && hex(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && hex(digits)
        }
        "rgbcolor" => rgb(text),
        "ssn" => {
            let digits: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
            digits.len() == 9 && digits.bytes().all(|b| b.is_ascii_digit())
        }
        "isbn" => isbn(text, 10) || isbn(text, 13),
        "isbn10" => isbn(text, 10),
        "isbn13" => isbn(text, 13),
        "creditcard" => credit_card(text),
        "email" => email(text),
        "hostname" => hostname(text),
        "uri" => {
            text.split_once(':').is_some_and(|(scheme, rest)| {
                scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
                    && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
                    && !rest.is_empty()
                    && !rest.contains(char::is_whitespace)
            }) || text.starts_with('/')
        }
        "k8s-short-name" => crate::names::label(text).is_empty(),
        "k8s-long-name" => crate::names::subdomain(text).is_empty(),
        _ => return None,
    })
}

fn date_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 19 && matches!(bytes[10], b'T' | b't' | b' ') && text.parse::<jiff::Timestamp>().is_ok()
}

/// Go's durations, and numbers with words (`3 days`).
fn duration(text: &str) -> bool {
    if ironkeel_object::parse_go_duration(text).is_some() {
        return true;
    }
    const UNITS: &[&str] = &[
        "ns",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "us",
        "µs",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "ms",
        "milli",
        "millis",
        "millisecond",
        "milliseconds",
        "s",
        "sec",
        "secs",
        "second",
        "seconds",
        "m",
        "min",
        "mins",
        "minute",
        "minutes",
        "h",
        "hr",
        "hrs",
        "hour",
        "hours",
        "d",
        "day",
        "days",
        "w",
        "wk",
        "wks",
        "week",
        "weeks",
    ];
    let text = text.trim().to_lowercase();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    digits > 0 && UNITS.contains(&text[digits..].trim())
}

fn mac(text: &str) -> bool {
    [':', '-'].iter().any(|sep| {
        let parts: Vec<&str> = text.split(*sep).collect();
        matches!(parts.len(), 6 | 8 | 20)
            && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}

fn uuid(text: &str, version: Option<u8>) -> bool {
    let hex: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    hex.len() == 32
        && matches!(text.len(), 32 | 36)
        && hex.iter().all(u8::is_ascii_hexdigit)
        && version.is_none_or(|v| hex[12] == v && (v == b'3' || matches!(hex[16] | 0x20, b'8' | b'9' | b'a' | b'b')))
}

fn rgb(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|t| t.strip_suffix(')'));
    inner.is_some_and(|i| {
        let parts: Vec<&str> = i.split(',').map(str::trim).collect();
        parts.len() == 3 && parts.iter().all(|p| p.parse::<u8>().is_ok())
    })
}

fn isbn(text: &str, length: usize) -> bool {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !matches!(c, '-' | ' '))
        .map(|c| if matches!(c, 'X' | 'x') { Some(10) } else { c.to_digit(10) })
        .collect::<Option<_>>()
        .unwrap_or_default();
    if digits.len() != length {
        return false;
    }
    if length == 10 {
        digits[..9].iter().all(|d| *d < 10)
            && digits.iter().enumerate().map(|(i, d)| (10 - i as u32) * d).sum::<u32>() % 11 == 0
    } else {
        digits.iter().all(|d| *d < 10)
            && digits.iter().enumerate().map(|(i, d)| if i % 2 == 0 { *d } else { 3 * d }).sum::<u32>() % 10 == 0
    }
}

fn credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let clean = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ' '));
    let luhn: u32 =
        digits.iter().rev().enumerate().map(|(i, d)| if i % 2 == 1 { (2 * d) / 10 + (2 * d) % 10 } else { *d }).sum();
    clean && (13..=19).contains(&digits.len()) && luhn.is_multiple_of(10)
}

fn email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    !local.is_empty() && !domain.is_empty() && !text.contains(char::is_whitespace) && !local.contains('@')
}

fn hostname(text: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
    };
    !text.is_empty() && text.len() <= 253 && text.split('.').all(label)
}
