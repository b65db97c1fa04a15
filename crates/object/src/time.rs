//! Times and durations in the texts that the API uses: RFC 3339 and Go's durations.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const NANOS_PER_SECOND: u32 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A moment: seconds since 1970 in UTC, and nanoseconds of that second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

impl Timestamp {
    /// From the system's clock type.
    pub fn from_system_time(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(d) => Timestamp { seconds: d.as_secs() as i64, nanos: d.subsec_nanos() },
            Err(e) => {
                let d = e.duration();
                let nanos = d.subsec_nanos();
                let borrow = i64::from(nanos > 0);
                let rest = if nanos > 0 { NANOS_PER_SECOND - nanos } else { 0 };
                Timestamp { seconds: -(d.as_secs() as i64) - borrow, nanos: rest }
            }
        }
    }

    /// Into the system's clock type; before 1970 it is 1970.
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::new(u64::try_from(self.seconds).unwrap_or(0), self.nanos)
    }

    /// Reads RFC 3339 with any offset and fraction.
    pub fn parse(text: &str) -> Option<Self> {
        let b = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            b.get(from..to)?.iter().try_fold(0, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if b[4] != b'-' || b[7] != b'-' || b[10] != b'T' || b[13] != b':' || b[16] != b':' {
            return None;
        }
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let mut at = 19;
        let mut nanos = 0u32;
        if matches!(b.get(at), Some(b'.' | b',')) {
            let digits = b[at + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            for i in 0..9 {
                let digit = if i < digits { u32::from(b[at + 1 + i] - b'0') } else { 0 };
                nanos = nanos * 10 + digit;
            }
            at += 1 + digits;
        }
        let offset = match *b.get(at)? {
            b'Z' if b.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if b.len() == at + 6 && b[at + 3] == b':' => {
                let (h, m) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
                if h > 24 || m > 60 {
                    return None;
                }
                (h * 3600 + m * 60) * if sign == b'+' { 1 } else { -1 }
            }
            _ => return None,
        };
        let seconds = days_from_civil(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
        Some(Timestamp { seconds: seconds - offset, nanos })
    }

    /// `2026-01-02T03:04:05Z`: the form of `Time`.
    pub fn to_rfc3339(self) -> String {
        let mut out = String::with_capacity(27);
        self.write_seconds(&mut out);
        out.push('Z');
        out
    }

    /// `2026-01-02T03:04:05.000006Z`: the form of `MicroTime`.
    pub fn to_rfc3339_micro(self) -> String {
        let mut out = String::with_capacity(27);
        self.write_seconds(&mut out);
        // Writing to a String cannot fail.
        let _ = write!(out, ".{:06}Z", self.nanos / 1000);
        out
    }

    fn write_seconds(self, out: &mut String) {
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(SECONDS_PER_DAY));
        let s = self.seconds.rem_euclid(SECONDS_PER_DAY);
        let _ = write!(out, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
    }

    /// Whether `text` already is what [`Timestamp::to_rfc3339`] writes; does not allocate.
    pub fn is_canonical_time(text: &str) -> bool {
        text.len() == 20 && text.ends_with('Z') && Self::parse(text).is_some()
    }

    /// Whether `text` already is what [`Timestamp::to_rfc3339_micro`] writes; does not allocate.
    pub fn is_canonical_micro_time(text: &str) -> bool {
        text.len() == 27 && text.ends_with('Z') && Self::parse(text).is_some()
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years are counted from March, so that the leap day is a year's last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date of a day since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Reads Go's duration text (`1h30m0.5s`, `-2ms`) into nanoseconds.
pub fn parse_go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole_len = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, mut tail) = rest.split_at(whole_len);
        let mut fraction = "";
        if let Some(after) = tail.strip_prefix('.') {
            let len = after.bytes().take_while(u8::is_ascii_digit).count();
            (fraction, tail) = after.split_at(len);
        }
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_len = tail.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        let (unit, after) = tail.split_at(unit_len);
        let unit_nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit_nanos)?)?;
        if !fraction.is_empty() {
            let used = &fraction[..fraction.len().min(15)];
            total = total.checked_add(used.parse::<i128>().ok()? * unit_nanos / 10i128.pow(used.len() as u32))?;
        }
        if total > i128::from(i64::MAX) + 1 {
            return None;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Writes nanoseconds as Go does: `1h30m0s`, `1.5s`, `100ms`, `0s`.
pub fn format_go_duration(nanos: i64) -> String {
    let total = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let with_fraction = |unit: u64, name: &str| {
        let (whole, part) = (total / unit, total % unit);
        if part == 0 {
            return format!("{sign}{whole}{name}");
        }
        let width = unit.ilog10() as usize;
        let digits = format!("{part:0width$}");
        format!("{sign}{whole}.{}{name}", digits.trim_end_matches('0'))
    };
    match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => with_fraction(1_000, "µs"),
        1_000_000..1_000_000_000 => with_fraction(1_000_000, "ms"),
        _ => {
            let seconds = total / 1_000_000_000;
            let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            let part = total % 1_000_000_000;
            let mut tail = rest.to_string();
            if part != 0 {
                let digits = format!("{part:09}");
                tail.push('.');
                tail.push_str(digits.trim_end_matches('0'));
            }
            match (hours, minutes) {
                (0, 0) => format!("{sign}{tail}s"),
                (0, m) => format!("{sign}{m}m{tail}s"),
                (h, m) => format!("{sign}{h}h{m}m{tail}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_read_in_any_offset_and_written_in_utc() {
        for (text, seconds, micro) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"),
            ("2024-02-29T23:59:59.123456789Z", "2024-02-29T23:59:59Z", "2024-02-29T23:59:59.123456Z"),
            ("2024-01-01T01:00:00+02:00", "2023-12-31T23:00:00Z", "2023-12-31T23:00:00.000000Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.500000Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ] {
            let t = Timestamp::parse(text).unwrap();
            assert_eq!(t.to_rfc3339(), seconds);
            assert_eq!(t.to_rfc3339_micro(), micro);
        }
        for text in ["", "2024-02-30T00:00:00Z", "2024-01-01", "2024-01-01T00:00:00", "2024-01-01t00:00:00Z", "x"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn system_times_go_both_ways() {
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        let stamp = Timestamp::from_system_time(time);
        assert_eq!(stamp.to_system_time(), time);
        assert_eq!(Timestamp::from_system_time(UNIX_EPOCH - Duration::new(1, 1)).nanos, 999_999_999);
    }

    #[test]
    fn durations_are_gos() {
        for (text, canonical) in [
            ("90m", "1h30m0s"),
            ("1.5s", "1.5s"),
            ("100ms", "100ms"),
            ("0", "0s"),
            ("-1m", "-1m0s"),
            ("1h0.25s", "1h0m0.25s"),
            ("1500us", "1.5ms"),
            (".5s", "500ms"),
        ] {
            assert_eq!(format_go_duration(parse_go_duration(text).unwrap()), canonical, "{text}");
        }
        for text in ["", "1", "s", "1x", "-", "99999999999h", "1s2"] {
            assert_eq!(parse_go_duration(text), None, "{text}");
        }
    }
}
