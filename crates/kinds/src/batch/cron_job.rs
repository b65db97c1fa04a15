//! CronJob.

use ironkeel_object::Value;

use crate::batch::{cron_schedule, job};
use crate::error::Errors;
use crate::pod_spec::{present, string};
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, print, rules, selector, strategy};

pub(crate) struct Rules;

/// A Job's name is the CronJob's with 11 characters behind it.
const NAME_MAX: usize = 52;

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        if spec.str("concurrencyPolicy").unwrap_or_default().is_empty() {
            spec.insert("concurrencyPolicy", "Allow");
        }
        if spec.get("suspend").is_none_or(Value::is_null) {
            spec.insert("suspend", false);
        }
        for (f, v) in [("successfulJobsHistoryLimit", 3_i64), ("failedJobsHistoryLimit", 1)] {
            if spec.get(f).is_none_or(Value::is_null) {
                spec.insert(f, v);
            }
        }
        let template = strategy::member(spec, "jobTemplate").and_then(|t| strategy::member(t, "spec"));
        if let Some(t) = template {
            // A template does not fix the counts that a Job gets by itself.
            let counts =
                ["completions", "parallelism", "backoffLimit", "suspend", "completionMode", "podReplacementPolicy"];
            let absent: Vec<&str> = counts.into_iter().filter(|f| t.get(f).is_none_or(Value::is_null)).collect();
            job::default_spec(t);
            for f in absent {
                t.remove(f);
            }
        }
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status"]) = Value::object();
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = o.get("spec").unwrap_or(&Value::Null);
        match string(spec, "schedule") {
            None => e.required(&at.child("schedule"), ""),
            Some(s) => {
                // A zone before the fields is read, and refused for another reason.
                let zoned = ["TZ=", "CRON_TZ="].into_iter().find_map(|z| s.strip_prefix(z));
                let fields = zoned.and_then(|z| z.split_once(' ')).map_or(s, |(_, fields)| fields.trim());
                if let Err(text) = cron_schedule::check(fields) {
                    e.invalid(&at.child("schedule"), s, &text);
                }
                if s.contains("TZ") {
                    let text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                    e.invalid(&at.child("schedule"), s, text);
                }
            }
        }
        if let Some(zone) = spec.str_at(&["timeZone"]) {
            if zone.is_empty() {
                e.invalid(&at.child("timeZone"), "", "timeZone must be nil or non-empty string");
            } else if zone.eq_ignore_ascii_case("local") {
                e.invalid(
                    &at.child("timeZone"),
                    zone,
                    "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                );
            } else if jiff::tz::TimeZone::get(zone).is_err() {
                e.invalid(&at.child("timeZone"), zone, &format!("unknown time zone {zone}"));
            }
        }
        for f in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            e.non_negative(&at.child(f), spec.i64_at(&[f]));
        }
        match string(spec, "concurrencyPolicy") {
            None => e.required(&at.child("concurrencyPolicy"), ""),
            Some("Allow" | "Forbid" | "Replace") => {}
            Some(p) => e.not_supported(&at.child("concurrencyPolicy"), p, &["Allow", "Forbid", "Replace"]),
        }
        let template = spec.at(&["jobTemplate", "spec"]).unwrap_or(&Value::Null);
        job::validate_spec(template, &at.child("jobTemplate").child("spec"), e);
        if let Some(s) = present(template, "selector") {
            let at = at.child("jobTemplate").child("spec").child("selector");
            e.invalid(&at, s.clone(), "`selector` will be auto-generated");
        }
        if template.at(&["manualSelector"]).and_then(Value::as_bool) == Some(true) {
            let at = at.child("jobTemplate").child("spec").child("manualSelector");
            e.not_supported(&at, true, &["nil", "false"]);
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn extra_name_rule(&self, name: &str, _prefix: bool) -> Vec<String> {
        if name.len() > NAME_MAX { vec![format!("must be no more than {NAME_MAX} characters")] } else { Vec::new() }
    }
    fn columns(&self) -> &'static str {
        "cronJob"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let pod = o.at(&["spec", "jobTemplate", "spec", "template", "spec"]);
        let (containers, images) = print::containers_and_images(pod);
        let last = match o.str_at(&["status", "lastScheduleTime"]) {
            Some(t) => print::since(Some(t), c),
            None => "<none>".into(),
        };
        vec![
            print::text(o, &["spec", "schedule"], ""),
            print::text(o, &["spec", "timeZone"], "<none>"),
            match o.at(&["spec", "suspend"]).and_then(Value::as_bool) {
                Some(true) => "True",
                Some(false) => "False",
                None => "<unset>",
            }
            .into(),
            (o.items_at(&["status", "active"]).len() as i64).into(),
            last.into(),
            print::age(o, c),
            containers,
            images,
            print::non_empty(selector::text(o.at(&["spec", "jobTemplate", "spec", "selector"])), "<none>"),
        ]
    }
}
