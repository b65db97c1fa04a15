//! Job.

use ironkeel_object::{ObjectMeta, Value};

use crate::batch::{job_policies, job_status};
use crate::error::Errors;
use crate::pod_spec::present;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, equality, names, pod_template, print, rules, selector, strategy};

pub(crate) struct Rules;

/// Defaults of a `JobSpec`, in a Job or in a CronJob's template.
pub(crate) fn default_spec(spec: &mut ironkeel_object::Map) {
    let absent = |spec: &ironkeel_object::Map, f: &str| spec.get(f).is_none_or(Value::is_null);
    if absent(spec, "completions") && absent(spec, "parallelism") {
        spec.insert("completions", 1_i64);
        spec.insert("parallelism", 1_i64);
    }
    if absent(spec, "parallelism") {
        spec.insert("parallelism", 1_i64);
    }
    if absent(spec, "backoffLimit") {
        let unlimited = !absent(spec, "backoffLimitPerIndex");
        spec.insert("backoffLimit", if unlimited { i64::from(i32::MAX) } else { 6 });
    }
    if absent(spec, "completionMode") {
        spec.insert("completionMode", "NonIndexed");
    }
    if absent(spec, "suspend") {
        spec.insert("suspend", false);
    }
    if absent(spec, "podReplacementPolicy") {
        let policy = if absent(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
        spec.insert("podReplacementPolicy", policy);
    }
    let rules = spec.get_mut("podFailurePolicy").and_then(|p| p.get_mut("rules")).and_then(Value::as_array_mut);
    for r in rules.into_iter().flatten() {
        for p in r.get_mut("onPodConditions").and_then(Value::as_array_mut).into_iter().flatten() {
            if p.get("status").is_none_or(Value::is_empty) {
                *p.slot(&["status"]) = "True".into();
            }
        }
    }
    pod_template::default_template(spec);
}

/// Rules of a `JobSpec`, without those of the selector.
pub(crate) fn validate_spec(spec: &Value, at: &Path, e: &mut Errors) {
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for f in counts {
        e.non_negative(&at.child(f), spec.i64_at(&[f]));
    }
    if spec.i64_at(&["maxFailedIndexes"]).is_some() && spec.i64_at(&["backoffLimitPerIndex"]).is_none() {
        e.required(&at.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    let indexed = spec.str_at(&["completionMode"]) == Some("Indexed");
    match spec.str_at(&["completionMode"]) {
        Some("Indexed") => indexes(spec, at, e),
        None | Some("NonIndexed") => {
            for f in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(n) = spec.i64_at(&[f]) {
                    e.invalid(&at.child(f), n, "requires indexed completion mode");
                }
            }
        }
        Some(m) => e.not_supported(&at.child("completionMode"), m, &["NonIndexed", "Indexed"]),
    }
    if let Some(m) = spec.str_at(&["managedBy"]) {
        names::domain_prefixed_path(m, &at.child("managedBy"), e);
        if m.len() > MANAGER_MAX_BYTES {
            e.too_long(&at.child("managedBy"), MANAGER_MAX_BYTES);
        }
    }
    if present(spec, "podFailurePolicy").is_some() {
        job_policies::failure(spec, &at.child("podFailurePolicy"), e);
    }
    if let Some(p) = present(spec, "successPolicy") {
        if indexed {
            job_policies::success(spec, &at.child("successPolicy"), e);
        } else {
            e.invalid(&at.child("successPolicy"), p.clone(), "requires indexed completion mode");
        }
    }
    if let Some(p) = spec.str_at(&["podReplacementPolicy"]) {
        let allowed: &[&str] =
            if present(spec, "podFailurePolicy").is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        if !allowed.contains(&p) {
            e.not_supported(&at.child("podReplacementPolicy"), p, allowed);
        }
    }
    pod_template::validate_template(spec.get("template"), &at.child("template"), e);
    let pod = at.child("template").child("spec");
    match spec.str_at(&["template", "spec", "restartPolicy"]).unwrap_or_default() {
        "Always" | "" => e.required(&pod.child("restartPolicy"), "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if present(spec, "podFailurePolicy").is_some() => {
            let text = "only \"Never\" is supported when podFailurePolicy is specified";
            e.invalid(&pod.child("restartPolicy"), "OnFailure", text);
        }
        "OnFailure" | "Never" => {}
        p => e.not_supported(&pod.child("restartPolicy"), p, &["OnFailure", "Never"]),
    }
}

const MANAGER_MAX_BYTES: usize = 63;
const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// From so many completions on, failures an index are bounded more tightly.
const MANY_COMPLETIONS: i64 = 100_000;
const MANY_COMPLETIONS_MAX: i64 = 10_000;

/// What an indexed Job needs and may have.
fn indexes(spec: &Value, at: &Path, e: &mut Errors) {
    let number = |f: &str| spec.i64_at(&[f]);
    let (completions, parallelism) = (number("completions"), number("parallelism"));
    let failed = number("maxFailedIndexes");
    if completions.is_none() {
        e.required(&at.child("completions"), "when completion mode is Indexed");
    }
    if let Some(p) = parallelism.filter(|p| *p > PARALLELISM_MAX) {
        let text = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        e.invalid(&at.child("parallelism"), p, &text);
    }
    if let (Some(f), Some(c)) = (failed, completions)
        && f > c
    {
        e.invalid(&at.child("maxFailedIndexes"), f, "must be less than or equal to completions");
    }
    if let Some(f) = failed.filter(|f| *f > FAILED_INDEXES_MAX) {
        let text = format!("must be less than or equal to {FAILED_INDEXES_MAX}");
        e.invalid(&at.child("maxFailedIndexes"), f, &text);
    }
    if completions.is_some_and(|c| c > MANY_COMPLETIONS) && number("backoffLimitPerIndex").is_some() {
        if failed.is_none() {
            let text = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            e.required(&at.child("maxFailedIndexes"), &text);
        }
        for (f, v) in [("parallelism", parallelism), ("maxFailedIndexes", failed)] {
            if let Some(n) = v.filter(|n| *n > MANY_COMPLETIONS_MAX) {
                let text = format!(
                    "must be less than or equal to {MANY_COMPLETIONS_MAX} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
                );
                e.invalid(&at.child(f), n, &text);
            }
        }
    }
}

/// A Job's pods are told apart by the Job's UID, unless the client chose the selector itself.
fn generate_selector(o: &mut Value) {
    if o.at(&["spec", "manualSelector"]).and_then(Value::as_bool) == Some(true) {
        return;
    }
    let (uid, name) = (o.uid().to_owned(), o.name().to_owned());
    // A name that is still to be generated comes later, and this with it.
    if uid.is_empty() || (name.is_empty() && !o.meta_str("generateName").is_empty()) {
        return;
    }
    let labels = o.slot(&["spec", "template", "metadata", "labels"]);
    for key in ["controller-uid", "job-name"] {
        let value = if key == "job-name" { &name } else { &uid };
        for key in [key.to_owned(), format!("batch.kubernetes.io/{key}")] {
            if !matches!(labels, Value::Object(_)) {
                *labels = Value::object();
            }
            if let Some(m) = labels.as_object_mut()
                && !m.contains_key(&key)
            {
                m.insert(key, value.as_str());
            }
        }
    }
    let selector = o.slot(&["spec", "selector", "matchLabels"]);
    if !matches!(selector, Value::Object(_)) {
        *selector = Value::object();
    }
    if let Some(m) = selector.as_object_mut()
        && !m.contains_key("batch.kubernetes.io/controller-uid")
    {
        m.insert("batch.kubernetes.io/controller-uid", uid);
    }
}

/// A template is fixed, but a suspended Job may still say where its pods run and what they get.
fn template_change(o: &Value, old: &Value, at: &Path, e: &mut Errors) {
    let mut template = o.at(&["spec", "template"]).cloned().unwrap_or_default();
    let before = old.at(&["spec", "template"]).cloned().unwrap_or_default();
    let suspended = old.at(&["spec", "suspend"]).and_then(Value::as_bool) == Some(true);
    let conditions = old.items_at(&["status", "conditions"]);
    let stopped =
        conditions.iter().any(|c| c.str_at(&["type"]) == Some("Suspended") && c.str_at(&["status"]) == Some("True"));
    let rests = old.at(&["status", "startTime"]).is_none_or(Value::is_null) || stopped;
    if !(suspended && rests && print::number(old, &["status", "active"]) == 0) {
        if !equality::equal_as("core/v1.PodTemplateSpec", &template, &before) {
            e.invalid(&at.child("template"), template, "field is immutable");
        }
        return;
    }
    let Some(spec) = template.get_mut("spec") else { return };
    let asked = spec.clone();
    let had = &before["spec"];
    for f in ["nodeSelector", "tolerations", "schedulingGates"] {
        strategy::keep(spec, had, f);
    }
    // Of the affinity, only that to nodes.
    let only_nodes = |a: &Value| ["podAffinity", "podAntiAffinity"].iter().all(|f| present(a, f).is_none());
    let (now, then) = (&asked["affinity"], &had["affinity"]);
    if only_nodes(now) && only_nodes(then) {
        strategy::keep(spec, had, "affinity");
    } else if let Some(a) = spec.get_mut("affinity").filter(|a| !a.is_null()) {
        strategy::keep(a, then, "nodeAffinity");
    }
    for list in ["containers", "initContainers"] {
        let was = had.items_at(&[list]);
        let now = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (c, b) in now.zip(was) {
            strategy::keep(c, b, "resources");
        }
    }
    if !equality::equal_as("core/v1.PodSpec", spec, had) {
        e.invalid(&at.child("template").child("spec"), asked, "field is immutable");
    }
}

/// The selector and labels that a Job gets by itself are all there.
fn validate_generated(o: &Value, e: &mut Errors) {
    let manual = o.at(&["spec", "manualSelector"]).and_then(Value::as_bool) == Some(true);
    let Some(selector) = o.at(&["spec", "selector"]).filter(|s| !manual && !s.is_null()) else { return };
    let (uid, name) = (o.uid(), o.name());
    let wanted = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    let at = Path::new("spec").child("template").child("metadata").child("labels");
    let labels = pod_template::template_labels(o);
    let mut generated = ironkeel_object::Map::new();
    for (key, value) in wanted {
        generated.insert(key, value);
        match labels.and_then(|l| l.get(key)).and_then(Value::as_str) {
            None => e.required(&at.key(key), &format!("must be '{value}'")),
            Some(v) if v != value => {
                e.invalid(&at.key(key), labels.cloned().unwrap_or_default(), &format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    if selector::is_valid(selector) && !selector::matches(selector, Some(&generated.into())) {
        e.invalid(&Path::new("spec").child("selector"), selector.clone(), "`selector` not auto-generated");
    }
}

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        if let Some(spec) = strategy::spec(o) {
            default_spec(spec);
            if spec.get("manualSelector").is_none_or(Value::is_null) {
                spec.insert("manualSelector", false);
            }
        }
        let labels = pod_template::template_labels(o).cloned().filter(|l| !l.is_empty());
        if let Some(l) = labels.filter(|_| o.at(&["metadata", "labels"]).is_none_or(Value::is_empty)) {
            o.meta_mut().insert("labels", l);
        }
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn prepare_create(&self, o: &mut Value) {
        *o.slot(&["status"]) = Value::object();
        // Labels that were taken over from the template follow it.
        let shared =
            pod_template::template_labels(o).is_some_and(|l| !l.is_empty() && o.at(&["metadata", "labels"]) == Some(l));
        generate_selector(o);
        if let Some(l) = pod_template::template_labels(o).cloned().filter(|_| shared) {
            o.meta_mut().insert("labels", l);
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = o.get("spec").unwrap_or(&Value::Null);
        validate_generated(o, e);
        validate_spec(spec, &at, e);
        let selector = present(spec, "selector");
        match selector {
            None => e.required(&at.child("selector"), ""),
            Some(s) => selector::label_selector(Some(s), &at.child("selector"), e),
        }
        // No selector selects nothing.
        if selector.is_none_or(selector::is_valid) {
            pod_template::validate_labels(o, e);
        }
        if let Some(n) = spec.i64_at(&["completions"]).filter(|n| *n > 0)
            && spec.str_at(&["completionMode"]) == Some("Indexed")
        {
            let last = format!("{}-{}", o.name(), n - 1);
            if !names::label(&last).is_empty() {
                let text = format!("will not able to create pod with invalid DNS label: {last}");
                e.invalid(&Path::new("metadata").child("name"), o.name(), &text);
            }
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            job_status::validate(o, old, e);
            return;
        }
        let at = Path::new("spec");
        let (new, before) = (&o["spec"], &old["spec"]);
        let indexed = new.str_at(&["completionMode"]) == Some("Indexed");
        let path = at.child("completions");
        if !indexed {
            e.immutable(&path, new.get("completions"), before.get("completions"));
        } else if let Some(c) = new.i64_at(&["completions"])
            && Some(c) != before.i64_at(&["completions"])
            && Some(c) != new.i64_at(&["parallelism"])
        {
            e.invalid(&path, c, "can only be modified in tandem with spec.parallelism");
        }
        let id = ironkeel_schema::type_by_name("batch/v1.JobSpec");
        for f in
            ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
        {
            if id.is_some_and(|id| !equality::same_member(id, f, new, before)) {
                e.invalid(&at.child(f), new.get(f).cloned().unwrap_or_default(), "field is immutable");
            }
        }
        template_change(o, old, &at, e);
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "job"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let condition = |kind: &str| {
            let all = o.items_at(&["status", "conditions"]);
            all.iter().any(|c| c.str_at(&["type"]) == Some(kind) && c.str_at(&["status"]) == Some("True"))
        };
        let status = if condition("Complete") {
            "Complete"
        } else if condition("Failed") {
            "Failed"
        } else if o.deletion_timestamp().is_some() {
            "Terminating"
        } else if condition("Suspended") {
            "Suspended"
        } else if condition("FailureTarget") {
            "FailureTarget"
        } else if condition("SuccessCriteriaMet") {
            "SuccessCriteriaMet"
        } else {
            "Running"
        };
        let done = print::number(o, &["status", "succeeded"]);
        let completions = match (o.i64_at(&["spec", "completions"]), o.i64_at(&["spec", "parallelism"])) {
            (Some(n), _) => format!("{done}/{n}"),
            (None, Some(p)) if p > 1 => format!("{done}/1 of {p}"),
            _ => format!("{done}/1"),
        };
        let time = |f: &str| o.str_at(&["status", f]).and_then(print::unix);
        let duration = match (time("startTime"), time("completionTime")) {
            (None, _) => String::new(),
            (Some(s), Some(end)) => print::human_duration(end - s),
            (Some(s), None) => print::human_duration(c.now_unix - s),
        };
        let (containers, images) = print::containers_and_images(o.at(&["spec", "template", "spec"]));
        vec![
            status.into(),
            completions.into(),
            duration.into(),
            print::age(o, c),
            containers,
            images,
            selector::text(o.at(&["spec", "selector"])).into(),
        ]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        (path == "status.successful").then(|| print::number(o, &["status", "succeeded"]).to_string())
    }
}
