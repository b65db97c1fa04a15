//! When a Job counts as failed or as done before its end: `podFailurePolicy`, `successPolicy`.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::{present, string};
use crate::repeats::repeated_whole;
use crate::{Path, names};

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;
const INDEXES_MAX_BYTES: usize = 64 * 1024;

/// `podFailurePolicy`.
pub(super) fn failure(spec: &Value, at: &Path, e: &mut Errors) {
    let rules = spec.items_at(&["podFailurePolicy", "rules"]);
    let path = at.child("rules");
    if rules.len() > RULES_MAX {
        e.too_many(&path, rules.len(), RULES_MAX);
    }
    for (i, r) in rules.iter().enumerate() {
        let at = path.index(i);
        const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
        match string(r, "action") {
            None => e.required(&at.child("action"), r#"valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#),
            Some("FailIndex") if present(spec, "backoffLimitPerIndex").is_none() => {
                e.invalid(&at.child("action"), "FailIndex", "requires the backoffLimitPerIndex to be set");
            }
            Some(a) if !ACTIONS.contains(&a) => e.not_supported(&at.child("action"), a, ACTIONS),
            Some(_) => {}
        }
        let codes = present(r, "onExitCodes");
        let conditions = r.items_at(&["onPodConditions"]);
        if let Some(c) = codes {
            exit_codes(spec, c, &at.child("onExitCodes"), e);
        }
        pod_conditions(conditions, &at.child("onPodConditions"), e);
        if codes.is_some() && !conditions.is_empty() {
            e.invalid_bare(&at, "specifying both OnExitCodes and OnPodConditions is not supported");
        }
        if codes.is_none() && conditions.is_empty() {
            e.invalid_bare(&at, "specifying one of OnExitCodes and OnPodConditions is required");
        }
    }
}

fn pod_conditions(list: &[Value], path: &Path, e: &mut Errors) {
    if list.len() > CONDITIONS_MAX {
        e.too_many(path, list.len(), CONDITIONS_MAX);
    }
    for (j, p) in list.iter().enumerate() {
        let at = path.index(j);
        let kind = p.str_at(&["type"]).unwrap_or_default();
        e.invalid_each(&at.child("type"), kind, names::qualified(kind));
        match p.str_at(&["status"]).unwrap_or_default() {
            "" => e.required(&at.child("status"), r#"valid values: ["False" "True" "Unknown"]"#),
            "False" | "True" | "Unknown" => {}
            s => e.not_supported(&at.child("status"), s, &["False", "True", "Unknown"]),
        }
    }
}

fn exit_codes(spec: &Value, c: &Value, at: &Path, e: &mut Errors) {
    let operator = c.str_at(&["operator"]).unwrap_or_default();
    match operator {
        "" => e.required(&at.child("operator"), r#"valid values: ["In" "NotIn"]"#),
        "In" | "NotIn" => {}
        o => e.not_supported(&at.child("operator"), o, &["In", "NotIn"]),
    }
    if let Some(n) = c.str_at(&["containerName"]) {
        let lists = ["containers", "initContainers"];
        let mut all = lists.iter().flat_map(|l| spec.items_at(&["template", "spec", l]));
        if !all.any(|c| c.str_at(&["name"]).unwrap_or_default() == n) {
            let text = "must be one of the container or initContainer names in the pod template";
            e.invalid(&at.child("containerName"), n, text);
        }
    }
    let values = c.items_at(&["values"]);
    let path = at.child("values");
    if values.is_empty() {
        e.invalid(&path, c.get("values").cloned().unwrap_or_default(), "at least one value is required");
    } else if values.len() > EXIT_CODES_MAX {
        e.too_many(&path, values.len(), EXIT_CODES_MAX);
    }
    let number = |v: &Value| v.as_i64().unwrap_or(0);
    let twice = repeated_whole(values);
    for (j, v) in values.iter().enumerate() {
        if operator == "In" && number(v) == 0 {
            e.invalid(&path.index(j), 0_i64, "must not be 0 for the In operator");
        }
        if twice[j] {
            e.duplicate(&path.index(j), v.clone());
        }
    }
    if values.windows(2).any(|w| number(&w[0]) > number(&w[1])) {
        e.invalid(&path, values.to_vec(), "must be ordered");
    }
}

/// `successPolicy` of an indexed Job.
pub(super) fn success(spec: &Value, at: &Path, e: &mut Errors) {
    let rules = spec.items_at(&["successPolicy", "rules"]);
    let path = at.child("rules");
    if rules.is_empty() {
        e.required(&path, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > RULES_MAX {
        e.too_many(&path, rules.len(), RULES_MAX);
    }
    let completions = spec.i64_at(&["completions"]).unwrap_or(0);
    for (i, r) in rules.iter().enumerate() {
        let at = path.index(i);
        let (count, indexes) = (r.i64_at(&["succeededCount"]), r.str_at(&["succeededIndexes"]));
        if count.is_none() && indexes.is_none() {
            e.required(&at, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut total = 0;
        if let Some(text) = indexes {
            let at = at.child("succeededIndexes");
            if text.len() > INDEXES_MAX_BYTES {
                e.too_long(&at, INDEXES_MAX_BYTES);
            }
            match count_indexes(text, completions) {
                Ok(n) => total = n,
                Err(why) => e.invalid(&at, text, &format!("error parsing succeededIndexes: {why}")),
            }
        }
        if let Some(n) = count {
            let at = at.child("succeededCount");
            e.non_negative(&at, Some(n));
            if n > completions {
                let text = format!("must be less than or equal to {completions} (the number of specified completions)");
                e.invalid(&at, n, &text);
            }
            if indexes.is_some() && n > total {
                let text = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                );
                e.invalid(&at, n, &text);
            }
        }
    }
}

/// An index, or the first and last of an interval of them: `5`, `0-2`.
fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let number = |s: &str| {
        let n = s.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: \"{s}\""))?;
        if n >= completions { Err(format!("too large index: \"{s}\"")) } else { Ok(n) }
    };
    let limits: Vec<&str> = part.split('-').collect();
    match limits[..] {
        [one] => Ok((number(one)?, number(one)?)),
        [from, to] => {
            let (from, to) = (number(from)?, number(to)?);
            if from >= to {
                return Err(format!("non-increasing order, previous: {from}, current: {to}"));
            }
            Ok((from, to))
        }
        _ => Err(format!(
            "the fragment \"{part}\" violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

/// How many indexes `0-2,5` names; what is wrong with it otherwise.
pub(super) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total) = (None, 0);
    for part in text.split(',') {
        let (from, to) = interval(part, completions)?;
        if let Some(l) = last.filter(|l| *l >= from) {
            return Err(format!("non-increasing order, previous: {l}, current: {from}"));
        }
        total += to - from + 1;
        last = Some(to);
    }
    Ok(total)
}

/// The first index that both texts name. What cannot be read is passed over.
pub(super) fn first_shared_index(a: &str, b: &str, completions: i64) -> Option<i64> {
    let read = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter(|p| !p.is_empty()).filter_map(|p| interval(p, completions).ok()).collect()
    };
    let (a, b) = (read(a), read(b));
    let (mut i, mut j) = (0, 0);
    while let (Some((from, to)), Some((first, last))) = (a.get(i), b.get(j)) {
        if from <= last && first <= to {
            return Some(*from.max(first));
        }
        if from <= first {
            i += 1;
        } else {
            j += 1;
        }
    }
    None
}
