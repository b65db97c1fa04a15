//! `policy`: PodDisruptionBudget.

use ironkeel_object::Value;

use crate::apps::deployment::{int_or_percent, percent_at_most_100};
use crate::error::Errors;
use crate::pod_spec::present;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, print, rules, selector};

pub(crate) struct Budget;

impl rules::Rules for Budget {
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn prepare_create(&self, o: &mut Value) {
        for f in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            *o.slot(&["status"]).slot(&[f]) = 0_i64.into();
        }
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = o.get("spec").unwrap_or(&Value::Null);
        if present(spec, "minAvailable").is_some() && present(spec, "maxUnavailable").is_some() {
            e.invalid(&at, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
        }
        for f in ["minAvailable", "maxUnavailable"] {
            int_or_percent(present(spec, f), &at.child(f), e);
            percent_at_most_100(present(spec, f), &at.child(f), e);
        }
        selector::label_selector(spec.get("selector"), &at.child("selector"), e);
        if let Some(p) = spec.str_at(&["unhealthyPodEvictionPolicy"])
            && !matches!(p, "AlwaysAllow" | "IfHealthyBudget")
        {
            e.not_supported(&at.child("unhealthyPodEvictionPolicy"), p, &["AlwaysAllow", "IfHealthyBudget"]);
        }
    }
    fn name_rule(&self) -> crate::names::NameRule {
        crate::names::NameRule::PathSegment
    }
    fn validate_update(&self, o: &Value, _old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            let at = Path::new("status");
            for f in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
                e.non_negative(&at.child(f), o.i64_at(&["status", f]));
            }
            crate::status::conditions(o.items_at(&["status", "conditions"]), &at.child("conditions"), e);
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "podDisruptionBudget"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let text = |f: &str| print::non_empty(print::scalar(o.at(&["spec", f])), "N/A");
        let allowed = print::number(o, &["status", "disruptionsAllowed"]);
        vec![text("minAvailable"), text("maxUnavailable"), allowed.into(), print::age(o, c)]
    }
}
