//! Parts of timestamps and durations, in UTC or another time zone.

use jiff::tz::{Offset, TimeZone};
use regex::Regex;

use crate::EvalError;
use crate::functions::{Answer, Cost, Row, refuse};
use crate::value::Val;

macro_rules! part {
    ($name:literal, $id:literal, $code:ident) => {
        Row {
            name: $name,
            cost: Cost::One,
            code: $code,
            overloads: &[
                concat!(".timestamp_to_", $id, " (timestamp) -> int"),
                concat!(".timestamp_to_", $id, "_with_tz (timestamp, string) -> int"),
            ],
        }
    };
    ($name:literal, $id:literal, $code:ident, duration) => {
        Row {
            name: $name,
            cost: Cost::One,
            code: $code,
            overloads: &[
                concat!(".timestamp_to_", $id, " (timestamp) -> int"),
                concat!(".timestamp_to_", $id, "_with_tz (timestamp, string) -> int"),
                concat!(".duration_to_", $id, " (duration) -> int"),
            ],
        }
    };
}

pub(crate) const ROWS: &[Row] = &[
    part!("getFullYear", "year", year),
    part!("getMonth", "month", month),
    part!("getDayOfYear", "day_of_year", day_of_year),
    part!("getDayOfMonth", "day_of_month", day_of_month),
    part!("getDate", "day_of_month_1_based", date),
    part!("getDayOfWeek", "day_of_week", day_of_week),
    part!("getHours", "hours", hours, duration),
    part!("getMinutes", "minutes", minutes, duration),
    part!("getSeconds", "seconds", seconds, duration),
    part!("getMilliseconds", "milliseconds", milliseconds, duration),
];

/// The zone that a second argument names: `America/New_York`, `UTC`, `+02:00`.
fn zone(args: &[Val<'_>]) -> Result<TimeZone, EvalError> {
    let Some(name) = args.get(1) else { return Ok(TimeZone::UTC) };
    let name = name.as_str().ok_or(EvalError::NoSuchOverload)?;
    if name.is_empty() || name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    if let Some((hours, minutes)) = name.split_once(':') {
        let parsed = hours.parse::<i32>().ok().zip(minutes.parse::<i32>().ok());
        let Some((h, m)) = parsed else { return refuse(format!("invalid time zone offset: {name}")) };
        let negative = hours.starts_with('-');
        let seconds = h.saturating_mul(3600).saturating_add(if negative { -m * 60 } else { m * 60 });
        return match Offset::from_seconds(seconds) {
            Ok(offset) => Ok(offset.to_time_zone()),
            Err(_) => refuse(format!("invalid time zone offset: {name}")),
        };
    }
    TimeZone::get(name).map_err(|_| EvalError::Refused(format!("unknown time zone {name}")))
}

fn civil(args: &[Val<'_>]) -> Result<jiff::civil::DateTime, EvalError> {
    let Some(Val::Timestamp(t)) = args.first() else { return Err(EvalError::NoSuchOverload) };
    let stamp = jiff::Timestamp::new(t.seconds, t.nanos as i32).map_err(|_| EvalError::TimestampOverflow)?;
    Ok(zone(args)?.to_datetime(stamp))
}

fn year<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Int(civil(args)?.year().into()))
}

fn month<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Int(i64::from(civil(args)?.month()) - 1))
}

fn day_of_year<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Int(i64::from(civil(args)?.date().day_of_year()) - 1))
}

fn day_of_month<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Int(i64::from(civil(args)?.day()) - 1))
}

fn date<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Int(civil(args)?.day().into()))
}

fn day_of_week<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    Ok(Val::Int(civil(args)?.date().weekday().to_sunday_zero_offset().into()))
}

fn of_duration(args: &[Val<'_>], unit: i64) -> Option<Val<'static>> {
    match args.first() {
        Some(Val::Duration(d)) => Some(Val::Int(d / unit)),
        _ => None,
    }
}

fn hours<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match of_duration(args, 3_600_000_000_000) {
        Some(whole) => Ok(whole),
        None => Ok(Val::Int(civil(args)?.hour().into())),
    }
}

fn minutes<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match of_duration(args, 60_000_000_000) {
        Some(whole) => Ok(whole),
        None => Ok(Val::Int(civil(args)?.minute().into())),
    }
}

fn seconds<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match of_duration(args, 1_000_000_000) {
        Some(whole) => Ok(whole),
        None => Ok(Val::Int(civil(args)?.second().into())),
    }
}

fn milliseconds<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match of_duration(args, 1_000_000) {
        Some(whole) => Ok(whole),
        None => Ok(Val::Int(civil(args)?.millisecond().into())),
    }
}
