//! What a write of a Job's status may say. Controllers other than ours write it too, so what clients rely on is held
//! here: an end is an end, counters go up, times stay. A rule looks only at what the write changes.

use ironkeel_object::Value;

use super::job_policies::{count_indexes, first_shared_index};
use crate::error::Errors;
use crate::repeats::identity;
use crate::{Path, equality, print};

/// One Job, read.
struct View<'a>(&'a Value);

impl<'a> View<'a> {
    fn has(&self, kind: &str, wanted: &str) -> bool {
        let all = self.0.items_at(&["status", "conditions"]);
        all.iter().find(|c| c.str_at(&["type"]) == Some(kind)).is_some_and(|c| c.str_at(&["status"]) == Some(wanted))
    }
    fn is(&self, kind: &str) -> bool {
        self.has(kind, "True")
    }
    fn finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }
    fn count(&self, field: &str) -> i64 {
        print::number(self.0, &["status", field])
    }
    fn text(&self, field: &str) -> Option<&'a str> {
        self.0.str_at(&["status", field])
    }
    fn member(&self, field: &str) -> Option<&'a Value> {
        self.0.at(&["status", field]).filter(|v| !v.is_null())
    }
    fn spec_count(&self, field: &str) -> Option<i64> {
        self.0.i64_at(&["spec", field])
    }
    fn indexed(&self) -> bool {
        self.0.str_at(&["spec", "completionMode"]) == Some("Indexed")
    }
    fn suspended(&self) -> bool {
        self.0.at(&["spec", "suspend"]).and_then(Value::as_bool) == Some(true)
    }
    /// Seconds since 1970.
    fn time(&self, field: &str) -> Option<i64> {
        self.text(field).and_then(print::unix)
    }
}

/// Rules for the status `o`, which was `old` before.
pub(super) fn validate(o: &Value, old: &Value, e: &mut Errors) {
    let at = Path::new("status");
    let (now, was) = (View(o), View(old));
    for f in ["active", "succeeded", "failed", "ready", "terminating"] {
        e.non_negative(&at.child(f), o.i64_at(&["status", f]));
    }
    uncounted(o, &at.child("uncountedTerminatedPods"), e);
    ends(&now, &was, &at, e);
    times(&now, &was, &at, e);
    finished(&now, &was, &at, e);
    indexes(&now, &was, &at, e);
    let turned = |f: &str| now.count(f) != was.count(f) || now.member(f).is_some() != was.member(f).is_some();
    let told = now.member("ready").is_some() && (turned("ready") || turned("active"));
    if told && now.count("ready") > now.count("active") {
        e.invalid(&at.child("ready"), now.count("ready"), "cannot set more ready pods than active");
    }
    if now.count("failed") < was.count("failed") {
        e.invalid(&at.child("failed"), now.count("failed"), "cannot decrease the failed counter");
    }
    // An indexed Job may be scaled down.
    let elastic = now.indexed() && now.spec_count("completions") == now.spec_count("parallelism");
    if !elastic && now.count("succeeded") < was.count("succeeded") {
        e.invalid(&at.child("succeeded"), now.count("succeeded"), "cannot decrease the succeeded counter");
    }
}

/// Pods that ended and are not counted yet: each once.
fn uncounted(o: &Value, at: &Path, e: &mut Errors) {
    let mut seen = std::collections::HashSet::new();
    for f in ["succeeded", "failed"] {
        for (i, uid) in o.items_at(&["status", "uncountedTerminatedPods", f]).iter().enumerate() {
            let at = at.child(f).index(i);
            if uid.is_empty() {
                e.invalid(&at, "", "must not be empty");
            } else if !seen.insert(identity(uid)) {
                e.duplicate(&at, uid.clone());
            }
        }
    }
}

/// Conditions that go together, and those that never go again.
fn ends(now: &View<'_>, was: &View<'_>, at: &Path, e: &mut Errors) {
    let at = at.child("conditions");
    let turned = |kind: &str| now.is(kind) != was.is(kind);
    let (complete, failed) = (now.is("Complete"), now.is("Failed"));
    let (target, met) = (now.is("FailureTarget"), now.is("SuccessCriteriaMet"));
    if (turned("Complete") || turned("Failed")) && complete && failed {
        e.invalid_bare(&at, "cannot set Complete=True and Failed=true conditions");
    }
    if (turned("Complete") || turned("FailureTarget")) && complete && target {
        e.invalid_bare(&at, "cannot set Complete=True and FailureTarget=true conditions");
    }
    let failures_changed = now.text("failedIndexes") != was.text("failedIndexes");
    if (turned("Failed") || failures_changed) && failed && !target {
        e.invalid_bare(&at, "cannot set Failed=True condition without the FailureTarget=true condition");
    }
    if (turned("Complete") || turned("SuccessCriteriaMet")) && complete && !met {
        e.invalid_bare(&at, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    }
    if met && failed {
        e.invalid_bare(&at, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if met && target {
        e.invalid_bare(&at, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    }
    if now.0.at(&["spec", "successPolicy"]).is_some_and(|p| !p.is_null()) && complete && !met {
        let text = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        e.invalid_bare(&at, text);
    }
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if was.is(kind) && !now.is(kind) {
            e.invalid_bare(&at, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    if was.is("SuccessCriteriaMet") && !met {
        e.invalid_bare(&at, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if was.is("Complete") && !was.is("SuccessCriteriaMet") && met {
        e.invalid_bare(&at, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
    }
}

fn times(now: &View<'_>, was: &View<'_>, at: &Path, e: &mut Errors) {
    let moved = |f: &str| now.time(f) != was.time(f);
    let (start, end) = (now.time("startTime"), now.time("completionTime"));
    let shown = |f: &str| now.member(f).cloned().unwrap_or_default();
    let complete = now.is("Complete");
    if complete != was.is("Complete") || moved("completionTime") {
        let at = at.child("completionTime");
        if end.is_some() && !complete {
            let text = "cannot set completionTime when there is no Complete=True condition";
            e.invalid(&at, shown("completionTime"), text);
        }
        if end.is_none() && complete {
            e.required(&at, "completionTime is required for Complete jobs");
        }
    }
    if let (true, Some(s), Some(c)) = (moved("startTime") || moved("completionTime"), start, end)
        && c < s
    {
        let at = at.child("completionTime");
        e.invalid(&at, shown("completionTime"), "must be equal to or after `startTime`");
    }
    if end.is_some() && was.time("completionTime").is_some() && moved("completionTime") {
        e.invalid(&at.child("completionTime"), shown("completionTime"), "field is immutable");
    }
    let resumes = was.is("Suspended") && now.has("Suspended", "False");
    if moved("startTime") && !resumes && was.time("startTime").is_some() && !now.suspended() {
        let text = "field is immutable for unsuspended job once set";
        e.invalid(&at.child("startTime"), shown("startTime"), text);
    }
}

/// What a finished Job has no more.
fn finished(now: &View<'_>, was: &View<'_>, at: &Path, e: &mut Errors) {
    let done = now.finished();
    if !done {
        return;
    }
    let turned = done != was.finished();
    if (turned || now.count("active") != was.count("active")) && now.count("active") > 0 {
        e.invalid(&at.child("active"), now.count("active"), "active>0 is invalid for finished job");
    }
    let never_began = now.suspended() && now.spec_count("completions") == Some(0);
    if (turned || now.time("startTime") != was.time("startTime")) && !never_began && now.time("startTime").is_none() {
        e.required(&at.child("startTime"), "startTime is required for finished job");
    }
    const UNCOUNTED: &str = "uncountedTerminatedPods";
    let rest = now.member(UNCOUNTED);
    let left = rest.map_or(0, |u| u.items_at(&["failed"]).len() + u.items_at(&["succeeded"]).len());
    if (turned || !equality::same(rest, was.member(UNCOUNTED))) && left > 0 {
        e.invalid(&at.child(UNCOUNTED), rest.cloned().unwrap_or_default(), "must be empty for finished job");
    }
    if (turned || now.count("terminating") != was.count("terminating")) && now.count("terminating") > 0 {
        e.invalid(&at.child("terminating"), now.count("terminating"), "terminating>0 is invalid for finished job");
    }
}

fn indexes(now: &View<'_>, was: &View<'_>, at: &Path, e: &mut Errors) {
    let (done, failed) = (now.text("completedIndexes").unwrap_or_default(), now.text("failedIndexes"));
    let done_changed = done != was.text("completedIndexes").unwrap_or_default();
    let failed_changed = failed != was.text("failedIndexes");
    let completions = now.spec_count("completions");
    let per_index = now.spec_count("backoffLimitPerIndex").is_some();
    let (at_done, at_failed) = (at.child("completedIndexes"), at.child("failedIndexes"));
    if done_changed {
        if let Some(Err(why)) = completions.map(|c| count_indexes(done, c)) {
            e.invalid(&at_done, done, &format!("error parsing completedIndexes: {why}"));
        }
        if !done.is_empty() && !now.indexed() {
            let text = "cannot set non-empty completedIndexes when non-indexed completion mode";
            e.invalid(&at_done, done, text);
        }
    }
    let Some(failed) = failed else { return };
    if failed_changed {
        if let Some(Err(why)) = completions.filter(|_| per_index).map(|c| count_indexes(failed, c)) {
            e.invalid(&at_failed, failed, &format!("error parsing failedIndexes: {why}"));
        }
        if !per_index {
            let text = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            e.invalid(&at_failed, failed, text);
        }
    }
    if failed_changed || done_changed {
        let shared = completions.and_then(|c| first_shared_index(done, failed, c));
        if let Some(i) = shared {
            e.invalid(&at_failed, failed, &format!("failedIndexes and completedIndexes overlap at index: {i}"));
        }
    }
}
