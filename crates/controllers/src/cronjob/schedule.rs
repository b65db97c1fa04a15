//! A schedule in cron's five fields, or one of its words, and when it fires next.
//!
//! Answers to the standard parser of robfig/cron: names of months and days, lists, ranges and steps, `@hourly` and its
//! like, `@every 90s`. Days of month and of week are both required when one of them is `*`, or else either will do.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// How many days ahead a schedule is looked for: February 29 may be eight years away.
const HORIZON_DAYS: u32 = 9 * 366;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When a CronJob runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// At the minutes that the fields name.
    Fields(Fields),
    /// So long after the last time.
    Every(Duration),
}

/// One bit for each value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

impl Schedule {
    /// Reads a schedule; none when it cannot be read.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(word) = text.strip_prefix('@') {
            let fields = match word {
                "yearly" | "annually" => "0 0 1 1 *",
                "monthly" => "0 0 1 * *",
                "weekly" => "0 0 * * 0",
                "daily" | "midnight" => "0 0 * * *",
                "hourly" => "0 * * * *",
                _ => return every(word.strip_prefix("every ")?),
            };
            return Self::parse(fields);
        }
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts[..] else { return None };
        let (days, any_day) = field(days, 1, 31, &[])?;
        let (weekdays, any_weekday) = field(weekdays, 0, 6, &WEEKDAYS)?;
        Some(Schedule::Fields(Fields {
            minutes: field(minutes, 0, 59, &[])?.0,
            hours: field(hours, 0, 23, &[])?.0,
            days,
            months: field(months, 1, 12, &MONTHS)?.0,
            weekdays,
            any_day,
            any_weekday,
        }))
    }

    /// The first time after `after`; none when there is none within the horizon.
    pub(crate) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(period) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*period).ok()
            }
            Schedule::Fields(fields) => fields.next(after, zone),
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut at = Timestamp::from_second((after.as_second().div_euclid(60) + 1) * 60).ok()?;
        let mut days = 0;
        while days < HORIZON_DAYS {
            let local = zone.to_datetime(at);
            if !self.on(local.date()) {
                days += 1;
                at = zone.to_zoned(local.date().tomorrow().ok()?.at(0, 0, 0, 0)).ok()?.timestamp();
                continue;
            }
            let minute = u32::from(local.minute().unsigned_abs());
            let later = self.minutes >> minute;
            let here = self.hours >> local.hour() & 1 == 1 && later != 0;
            if here && later & 1 == 1 {
                return Some(at);
            }
            // By the clock's minutes, and in real time: an hour that the zone skips or repeats is met as it comes.
            let step = if here { later.trailing_zeros() } else { 60 - minute };
            if !here && local.hour() == 23 {
                days += 1;
            }
            at = at.checked_add(SignedDuration::from_mins(i64::from(step))).ok()?;
        }
        None
    }

    fn on(&self, date: Date) -> bool {
        let set = |bits: u64, value: i8| bits >> value & 1 == 1;
        let day = set(self.days, date.day());
        let weekday = set(self.weekdays, date.weekday().to_sunday_zero_offset());
        let fits = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        set(self.months, date.month()) && fits
    }
}

/// The bits of a field, and whether it is `*`.
fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Option<(u64, bool)> {
    let number = |text: &str| match names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(at) => Some(low + u32::try_from(at).ok()?),
        None => text.parse::<u32>().ok(),
    };
    let (mut bits, mut any) = (0_u64, false);
    for part in text.split(',') {
        let (span, step) = part.split_once('/').map_or((part, None), |(span, step)| (span, Some(step)));
        let step = step.map_or(Some(1), |step| step.parse::<u32>().ok().filter(|step| *step > 0))?;
        let (from, to) = if span == "*" || span == "?" {
            any |= step == 1;
            (low, high)
        } else if let Some((from, to)) = span.split_once('-') {
            (number(from)?, number(to)?)
        } else {
            let from = number(span)?;
            (from, if part.contains('/') { high } else { from })
        };
        if from < low || to > high || from > to {
            return None;
        }
        let step = usize::try_from(step).ok()?;
        bits |= (from..=to).step_by(step).fold(0, |bits, value| bits | 1 << value);
    }
    Some((bits, any))
}

/// `@every`'s duration, as Go writes them; whole seconds, one at least.
fn every(text: &str) -> Option<Schedule> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..unit_at].parse().ok()?;
        let unit_end = rest[unit_at..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| unit_at + end);
        let unit = match &rest[unit_at..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += amount * unit;
        rest = &rest[unit_end..];
    }
    let whole = Duration::try_from_secs_f64(seconds).ok()?.as_secs().max(1);
    Some(Schedule::Every(Duration::from_secs(whole)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(schedule: &str, zone: &str, after: &str, expected: &[&str]) {
        let parsed = Schedule::parse(schedule).unwrap();
        let zone = TimeZone::get(zone).unwrap();
        let mut at: Timestamp = after.parse().unwrap();
        for expected in expected {
            at = parsed.next(at, &zone).unwrap();
            assert_eq!(at, expected.parse().unwrap(), "{schedule} after {after}");
        }
    }

    #[test]
    fn fields_lists_ranges_steps_and_words() {
        check("*/20 * * * *", "UTC", "2026-01-01T00:50:30Z", &["2026-01-01T01:00:00Z", "2026-01-01T01:20:00Z"]);
        check("5,35 8-9 * * mon-FRI", "UTC", "2026-01-02T09:35:00Z", &["2026-01-05T08:05:00Z", "2026-01-05T08:35:00Z"]);
        check("0 0 29 feb *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
        check("10/25 0 * * ?", "UTC", "2026-01-01T00:00:00Z", &["2026-01-01T00:10:00Z", "2026-01-01T00:35:00Z"]);
        check("@weekly", "UTC", "2026-01-01T00:00:00Z", &["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]);
        check("@hourly", "UTC", "2026-01-01T00:00:00Z", &["2026-01-01T01:00:00Z"]);
        check("@yearly", "UTC", "2026-01-01T00:00:00Z", &["2027-01-01T00:00:00Z"]);
        check("@every 1m30s", "UTC", "2026-01-01T00:00:00.5Z", &["2026-01-01T00:01:30Z", "2026-01-01T00:03:00Z"]);
    }

    #[test]
    fn either_day_field_will_do_unless_one_is_a_star() {
        // The 13th, or a Friday; January 13 2026 is a Tuesday.
        check("0 0 13 * fri", "UTC", "2026-01-09T00:00:00Z", &["2026-01-13T00:00:00Z", "2026-01-16T00:00:00Z"]);
        check("0 0 * * fri", "UTC", "2026-01-09T00:00:00Z", &["2026-01-16T00:00:00Z"]);
    }

    #[test]
    fn zones_move_the_clock_and_skip_what_does_not_exist() {
        check("0 9 * * *", "Asia/Tokyo", "2026-01-01T00:00:00Z", &["2026-01-02T00:00:00Z"]);
        // 02:30 does not exist on March 29 2026 in Berlin.
        check("30 2 * * *", "Europe/Berlin", "2026-03-28T02:00:00Z", &["2026-03-30T00:30:00Z"]);
    }

    #[test]
    fn what_is_no_schedule_is_none() {
        for text in ["", "* * * *", "60 * * * *", "* * * * 8", "*/0 * * * *", "5-1 * * * *", "@often", "@every x"] {
            assert_eq!(Schedule::parse(text), None, "{text}");
        }
        assert_eq!(Schedule::parse("0 0 30 2 *").unwrap().next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }
}
