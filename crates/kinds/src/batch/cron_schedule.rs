//! The text of a cron schedule: whether it can be read. When it fires is the controller's matter.

fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Result<(), String> {
    let number = |t: &str| -> Result<u32, String> {
        if let Some(i) = names.iter().position(|n| n.eq_ignore_ascii_case(t)) {
            return Ok(low + i as u32);
        }
        t.parse::<u32>()
            .map_err(|_| format!("failed to parse int from {t}: strconv.Atoi: parsing \"{t}\": invalid syntax"))
    };
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
        if let Some(s) = step
            && number(s)? == 0
        {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        if range == "*" || range == "?" {
            continue;
        }
        let (from, to) = match range.split_once('-') {
            Some((a, b)) => (number(a)?, number(b)?),
            None => {
                let n = number(range)?;
                (n, n)
            }
        };
        if from < low {
            return Err(format!("beginning of range ({from}) below minimum ({low}): {part}"));
        }
        if to > high {
            return Err(format!("end of range ({to}) above maximum ({high}): {part}"));
        }
        if from > to {
            return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
        }
    }
    Ok(())
}

/// Five fields, or a word such as `@daily`; the error says what upstream's parser says.
pub(crate) fn check(text: &str) -> Result<(), String> {
    const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    if let Some(word) = text.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let every = word.strip_prefix("every ").is_some_and(|d| ironkeel_object::parse_go_duration(d).is_some());
        return if known.contains(&word) || every { Ok(()) } else { Err(format!("unrecognized descriptor: {text}")) };
    }
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts[..] else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    };
    field(minute, 0, 59, &[])?;
    field(hour, 0, 23, &[])?;
    field(day, 1, 31, &[])?;
    field(month, 1, 12, MONTHS)?;
    field(weekday, 0, 6, DAYS)
}
