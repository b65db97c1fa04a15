//! DaemonSet.

use ironkeel_object::{ObjectMeta, Value};

use crate::apps::deployment::{int_or_percent, is_zero, percent_at_most_100};
use crate::error::Errors;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, equality, pod_template, print, rules, selector, strategy};

pub(crate) struct Rules;

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn set_template_generation(o: &mut Value, n: i64) {
    let annotations = o.meta_mut().object("annotations");
    annotations.insert(TEMPLATE_GENERATION, n.to_string());
}

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        if spec.get("revisionHistoryLimit").is_none_or(Value::is_null) {
            spec.insert("revisionHistoryLimit", 10_i64);
        }
        let update = spec.object("updateStrategy");
        if update.str("type").unwrap_or_default().is_empty() {
            update.insert("type", "RollingUpdate");
        }
        if update.str("type") == Some("RollingUpdate") {
            let rolling = update.object("rollingUpdate");
            for (f, v) in [("maxUnavailable", 1_i64), ("maxSurge", 0)] {
                if rolling.get(f).is_none_or(Value::is_null) {
                    rolling.insert(f, v);
                }
            }
        }
        pod_template::default_template(spec);
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn prepare_create(&self, o: &mut Value) {
        set_template_generation(o, 1);
        let status = o.slot(&["status"]);
        for f in ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"] {
            *status.slot(&[f]) = 0_i64.into();
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let spec = Path::new("spec");
        let selected = o.at(&["spec", "selector"]).is_some_and(|s| !s.is_null());
        if !selected || pod_template::validate_selector(o, "daemonset", e) {
            pod_template::validate_labels(o, e);
        }
        pod_template::validate_template(o.at(&["spec", "template"]), &spec.child("template"), e);
        let at = spec.child("template").child("spec");
        let pod = o.at(&["spec", "template", "spec"]).unwrap_or(&Value::Null);
        if let Some(p) = pod.str_at(&["restartPolicy"]).filter(|p| !p.is_empty() && *p != "Always") {
            e.not_supported(&at.child("restartPolicy"), p, &["Always"]);
        }
        if pod.i64_at(&["activeDeadlineSeconds"]).is_some() {
            e.forbidden(&at.child("activeDeadlineSeconds"), "activeDeadlineSeconds in DaemonSet is not Supported");
        }
        for f in ["minReadySeconds", "revisionHistoryLimit"] {
            e.non_negative(&spec.child(f), o.i64_at(&["spec", f]));
        }
        let s = o.at(&["spec", "updateStrategy"]).unwrap_or(&Value::Null);
        let at = spec.child("updateStrategy");
        match s.str_at(&["type"]).unwrap_or_default() {
            "OnDelete" => {}
            "RollingUpdate" => {
                let Some(r) = s.get("rollingUpdate").filter(|r| !r.is_null()) else {
                    e.required(&at.child("rollingUpdate"), "");
                    return;
                };
                let at = at.child("rollingUpdate");
                for f in ["maxUnavailable", "maxSurge"] {
                    int_or_percent(r.get(f), &at.child(f), e);
                    percent_at_most_100(r.get(f), &at.child(f), e);
                }
                match (is_zero(r.get("maxUnavailable")), is_zero(r.get("maxSurge"))) {
                    (true, true) => {
                        e.required(&at.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
                    }
                    (false, false) => {
                        let v = r.get("maxSurge").cloned().unwrap_or_default();
                        e.invalid(&at.child("maxSurge"), v, "may not be set when maxUnavailable is non-zero");
                    }
                    _ => {}
                }
            }
            _ => e.not_supported(&at, s.clone(), &["RollingUpdate", "OnDelete"]),
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            let fields = [
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ];
            for f in fields {
                e.non_negative(&Path::new("status").child(f), o.i64_at(&["status", f]));
            }
            return;
        }
        pod_template::immutable_selector(o, old, e);
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        if subresource.is_some() {
            // No member of the object upstream, so a status cannot take it away.
            if let Some(n) = old.annotation(TEMPLATE_GENERATION).map(str::to_owned) {
                o.meta_mut().object("annotations").insert(TEMPLATE_GENERATION, n);
            }
            return;
        }
        // The old counter of template changes still goes up for old clients.
        let before = old.annotation(TEMPLATE_GENERATION).and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
        let changed = !equality::equal_as("core/v1.PodTemplateSpec", &o["spec"]["template"], &old["spec"]["template"]);
        set_template_generation(o, before + i64::from(changed));
    }
    fn tells_changes_first(&self) -> bool {
        true
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "daemonSet"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let (containers, images) = print::containers_and_images(o.at(&["spec", "template", "spec"]));
        let count = |f: &str| Value::from(print::number(o, &["status", f]));
        vec![
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            print::non_empty(selector::map_text(o.at(&["spec", "template", "spec", "nodeSelector"])), "<none>"),
            print::age(o, c),
            containers,
            images,
            selector::text(o.at(&["spec", "selector"])).into(),
        ]
    }
}
