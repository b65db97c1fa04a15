//! ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings.

use ironkeel_expr::Environment;
use ironkeel_object::{ObjectMeta, Value};

use super::constraints::{default_match_resources, match_conditions, match_resources};
use super::expressions::{self, Variables};
use crate::error::Errors;
use crate::pod_spec::present;
use crate::repeats::{repeated, repeated_whole};
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules, selector, status, strategy};

/// Audit annotations that one policy may have.
const AUDIT_ANNOTATIONS_MAX: usize = 20;
/// Longest expression of an audit annotation, in bytes.
const VALUE_EXPRESSION_MAX_BYTES: usize = 5 * 1024;

/// Policies of both sorts.
pub(crate) struct Policy {
    pub(crate) mutating: bool,
}
impl rules::Rules for Policy {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        if spec.get("failurePolicy").is_none_or(Value::is_null) {
            spec.insert("failurePolicy", "Fail");
        }
        if let Some(m) = spec.get_mut("matchConstraints").filter(|m| !m.is_null()) {
            default_match_resources(m);
        }
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        Some(("admissionregistration.k8s.io", "v1"))
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        check(o, None, e);
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource.is_none() {
            check(o, Some(old), e);
        } else {
            let list = o.items_at(&["status", "conditions"]);
            status::conditions(list, &Path::new("status").child("conditions"), e);
        }
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn columns(&self) -> &'static str {
        if self.mutating { "mutatingPolicy" } else { "validatingPolicy" }
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let spec = &o["spec"];
        let count = spec.items_at(&[if self.mutating { "mutations" } else { "validations" }]).len() as i64;
        let text = |k: &Value, f: &str| k.str_at(&[f]).unwrap_or_default().to_owned();
        let kind = present(spec, "paramKind")
            .map_or("<unset>".to_owned(), |k| format!("{}/{}", text(k, "apiVersion"), text(k, "kind")));
        vec![count.into(), kind.into(), print::age(o, c)]
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
}

/// Bindings of admission policies.
pub(crate) struct PolicyBinding;
impl rules::Rules for PolicyBinding {
    fn default(&self, o: &mut Value) {
        let Some(spec) = o.get_mut("spec") else { return };
        if let Some(m) = spec.get_mut("matchResources").filter(|m| !m.is_null()) {
            default_match_resources(m);
        }
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        Some(("admissionregistration.k8s.io", "v1"))
    }
    fn columns(&self) -> &'static str {
        "policyBinding"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let reference = present(&o["spec"], "paramRef");
        let text = |f: &str| reference.and_then(|r| r.str_at(&[f])).unwrap_or_default();
        let param = match (text("namespace"), text("name")) {
            (_, "") => match reference.and_then(|r| present(r, "selector")) {
                Some(s) => go_selector(s),
                None => "<unset>".to_owned(),
            },
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        vec![print::text(o, &["spec", "policyName"], ""), param.into(), print::age(o, c)]
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let (at, spec) = (Path::new("spec"), &o["spec"]);
        let name = spec.str_at(&["policyName"]).unwrap_or_default();
        if name.is_empty() {
            e.required(&at.child("policyName"), "");
        } else {
            e.invalid_each(&at.child("policyName"), name, names::subdomain(name));
        }
        if let Some(reference) = present(spec, "paramRef") {
            param_ref(reference, &at.child("paramRef"), e);
        }
        if let Some(m) = present(spec, "matchResources") {
            match_resources(m, &at.child("matchResources"), e);
        }
        if o.get("kind").and_then(Value::as_str) == Some("ValidatingAdmissionPolicyBinding") {
            actions(spec, &at.child("validationActions"), e);
        }
    }
}

/// A selector as Go shows the struct; upstream's column has it so.
fn go_selector(s: &Value) -> String {
    let labels = s.get("matchLabels").and_then(Value::as_object).into_iter().flat_map(|m| m.iter());
    let labels: String = labels.map(|(k, v)| format!("{k}: {},", v.as_str().unwrap_or_default())).collect();
    let expressions = s.items_at(&["matchExpressions"]).iter().map(|x| {
        let text = |f: &str| x.str_at(&[f]).unwrap_or_default();
        let values: Vec<&str> = x.items_at(&["values"]).iter().filter_map(Value::as_str).collect();
        let (key, operator) = (text("key"), text("operator"));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
    });
    let expressions: String = expressions.collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

fn actions(spec: &Value, at: &Path, e: &mut Errors) {
    let all = spec.items_at(&["validationActions"]);
    let twice = repeated_whole(all);
    for (i, action) in all.iter().enumerate() {
        let text = action.as_str().unwrap_or_default();
        if !["Audit", "Deny", "Warn"].contains(&text) {
            e.not_supported(&at.index(i), text, &["Audit", "Deny", "Warn"]);
        }
        if twice[i] {
            e.duplicate(&at.index(i), text);
        }
    }
    let has = |name: &str| all.iter().any(|a| a.as_str() == Some(name));
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        e.invalid(at, all.to_vec(), detail);
    }
    if all.is_empty() {
        e.required(at, "at least one validation action is required");
    }
}

fn param_ref(reference: &Value, at: &Path, e: &mut Errors) {
    let name = reference.str_at(&["name"]).unwrap_or_default();
    let given = present(reference, "selector");
    if !name.is_empty() {
        e.invalid_each(&at.child("name"), name, names::path_segment(name, false));
        if given.is_some() {
            e.forbidden(&at.child("name"), "name and selector are mutually exclusive");
        }
    }
    if given.is_some() {
        selector::label_selector(given, &at.child("selector"), e);
        if !name.is_empty() {
            e.forbidden(&at.child("selector"), "name and selector are mutually exclusive");
        }
    }
    if name.is_empty() && given.is_none() {
        e.required(at, "one of name or selector must be specified");
    }
    match reference.str_at(&["parameterNotFoundAction"]).unwrap_or_default() {
        "" => e.required(&at.child("parameterNotFoundAction"), ""),
        "Allow" | "Deny" => {}
        other => e.not_supported(&at.child("parameterNotFoundAction"), other, &["Deny", "Allow"]),
    }
}

fn check(o: &Value, old: Option<&Value>, e: &mut Errors) {
    let (at, spec) = (Path::new("spec"), &o["spec"]);
    let mutating = o.get("kind").and_then(Value::as_str) == Some("MutatingAdmissionPolicy");
    match spec.str_at(&["failurePolicy"]) {
        None => e.required(&at.child("failurePolicy"), ""),
        Some("Fail" | "Ignore") => {}
        Some(other) => e.not_supported(&at.child("failurePolicy"), other, &["Fail", "Ignore"]),
    }
    let params = present(spec, "paramKind");
    if let Some(kind) = params {
        param_kind(kind, &at.child("paramKind"), e);
    }
    match present(spec, "matchConstraints") {
        None => e.required(&at.child("matchConstraints"), ""),
        Some(m) => {
            match_resources(m, &at.child("matchConstraints"), e);
            let operations = m.items_at(&["resourceRules"]).iter().flat_map(|r| r.items_at(&["operations"]));
            for text in operations.filter_map(Value::as_str).filter(|_| mutating) {
                if !["*", "CONNECT", "CREATE", "UPDATE"].contains(&text) {
                    let at = at.child("matchConstraints").child("resourceRules").child("operations");
                    e.not_supported(&at, text, &["*", "CONNECT", "CREATE", "UPDATE"]);
                }
            }
            if m.items_at(&["resourceRules"]).is_empty() {
                e.required(&at.child("matchConstraints").child("resourceRules"), "");
            }
        }
    }
    let same = |key: &str| old.is_some_and(|o| o["spec"].get(key) == spec.get(key));
    let base = expressions::policy_environment(params.is_some());
    if !(same("paramKind") && same("matchConditions")) {
        match_conditions(spec, &base, &at.child("matchConditions"), e);
    }
    let base = if mutating { base.with_patch_types() } else { base };
    let list = spec.items_at(&["variables"]);
    let Variables { environment, programs } = Variables::compile(list, base);
    for (i, (variable, (_, program))) in list.iter().zip(&programs).enumerate() {
        let at = at.child("variables").index(i);
        let name = variable.str_at(&["name"]).unwrap_or_default();
        if name.trim().is_empty() {
            e.required(&at.child("name"), "name is not specified");
        } else if !expressions::is_identifier(name) {
            e.invalid(&at.child("name"), name, "must be a valid CEL identifier");
        }
        let expression = variable.str_at(&["expression"]).unwrap_or_default();
        if expression.trim().is_empty() {
            e.required(&at.child("expression"), "expression is not specified");
        } else if let Err(why) = program {
            expressions::wrong(expression, why, &at.child("expression"), e);
        }
    }
    if mutating {
        mutations(spec, &environment, &at, e);
    } else {
        validations(o.name(), spec, &environment, &at, e);
    }
}

fn param_kind(kind: &Value, at: &Path, e: &mut Errors) {
    let api_version = kind.str_at(&["apiVersion"]).unwrap_or_default();
    let path = at.child("apiVersion");
    match api_version.split('/').collect::<Vec<_>>().as_slice() {
        [""] => e.required(&path, ""),
        [version] | ["", version] => version_name(api_version, version, &path, e),
        [group, version] => {
            if !names::subdomain(group).is_empty() {
                e.invalid(&path, *group, &names::subdomain(group).join(","));
            }
            version_name(api_version, version, &path, e);
        }
        _ => e.invalid(&path, api_version, &format!("unexpected GroupVersion string: {api_version}")),
    }
    let name = kind.str_at(&["kind"]).unwrap_or_default();
    let wrong = names::label_1035(&name.to_lowercase());
    if name.is_empty() {
        e.required(&at.child("kind"), "");
    } else if !wrong.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        e.invalid(&at.child("kind"), name, &detail);
    }
}

fn version_name(whole: &str, version: &str, at: &Path, e: &mut Errors) {
    let wrong = names::label_1035(version);
    if version.is_empty() {
        e.invalid(at, whole, "version must be specified");
    } else if !wrong.is_empty() {
        e.invalid(at, version, &wrong.join(","));
    }
}

fn validations(name: &str, spec: &Value, env: &Environment, at: &Path, e: &mut Errors) {
    let (all, notes) = (spec.items_at(&["validations"]), spec.items_at(&["auditAnnotations"]));
    if all.is_empty() && notes.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        e.required(&at.child("validations"), detail);
        e.required(&at.child("auditAnnotations"), detail);
        return;
    }
    for (i, v) in all.iter().enumerate() {
        let at = at.child("validations").index(i);
        let text = |key: &str| v.str_at(&[key]).unwrap_or_default();
        if text("expression").trim().is_empty() {
            e.required(&at.child("expression"), "expression is not specified");
        } else {
            expressions::condition(env, text("expression"), &at.child("expression"), e);
        }
        let message = text("messageExpression");
        if !message.is_empty() && message.trim().is_empty() {
            e.invalid(&at.child("messageExpression"), message, "must be non-empty if specified");
        } else if !message.is_empty() {
            expressions::text(&expressions::message_environment(env), message, &at.child("messageExpression"), e);
        }
        let fixed = text("message");
        if !fixed.is_empty() && fixed.trim().is_empty() {
            e.invalid(&at.child("message"), fixed, "must be non-empty if specified");
        } else if fixed.trim().contains(['\n', '\r']) {
            e.invalid(&at.child("message"), fixed, "must not contain line breaks");
        }
        let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        if let Some(reason) = v.str_at(&["reason"]).filter(|r| !reasons.contains(r)) {
            e.not_supported(&at.child("reason"), reason, &reasons);
        }
    }
    let path = at.child("auditAnnotations");
    if notes.len() > AUDIT_ANNOTATIONS_MAX {
        let detail = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        e.invalid(&path, notes.to_vec(), &detail);
    }
    let twice = repeated(notes, "key");
    for (i, note) in notes.iter().enumerate() {
        let at = path.index(i);
        let key = note.str_at(&["key"]).unwrap_or_default();
        let whole = format!("{name}/{key}");
        if name.is_empty() {
            e.invalid(&at.child("key"), key, "requires metadata.name be non-empty");
        } else {
            e.invalid_each(&at.child("key"), &whole, names::qualified(&whole));
        }
        let value = note.str_at(&["valueExpression"]).unwrap_or_default();
        let at_value = at.child("valueExpression");
        match value.trim() {
            "" => e.required(&at_value, "valueExpression is not specified"),
            text if text.len() > VALUE_EXPRESSION_MAX_BYTES => {
                let detail = format!("must not exceed {VALUE_EXPRESSION_MAX_BYTES} bytes in length");
                e.required(&at_value, &detail);
            }
            text => expressions::text_or_null(env, text, &at_value, e),
        }
        if twice[i] {
            e.duplicate(&at.child("key"), key);
        }
    }
}

fn mutations(spec: &Value, env: &Environment, at: &Path, e: &mut Errors) {
    let path = at.child("mutations");
    let all = spec.items_at(&["mutations"]);
    if all.is_empty() {
        e.required(&path, "mutations must contain at least one item");
    }
    for (i, m) in all.iter().enumerate() {
        let at = path.index(i);
        let apply = present(m, "applyConfiguration");
        let patch = present(m, "jsonPatch");
        let mut one = |holder: Option<&Value>, field: &str, other: (Option<&Value>, &str)| {
            let expression = holder.and_then(|h| h.str_at(&["expression"])).unwrap_or_default();
            let path = at.child(field);
            match holder {
                None => e.required(
                    &path,
                    &format!("must be specified when patchType is {}", m["patchType"].as_str().unwrap_or_default()),
                ),
                Some(_) if expression.trim().is_empty() => e.required(&path.child("expression"), ""),
                Some(_) if field == "jsonPatch" => {
                    expressions::json_patch(env, expression, &path.child("expression"), e);
                }
                Some(_) => expressions::apply_configuration(env, expression, &path.child("expression"), e),
            }
            if other.0.is_some() {
                let kind = m["patchType"].as_str().unwrap_or_default();
                e.invalid(
                    &at.child(other.1),
                    format!("{{{}}}", other.1),
                    &format!("must not be specified when patchType is {kind}"),
                );
            }
        };
        match m.str_at(&["patchType"]).unwrap_or_default() {
            "" => e.required(&at.child("patchType"), ""),
            "ApplyConfiguration" => one(apply, "applyConfiguration", (patch, "jsonPatch")),
            "JSONPatch" => one(patch, "jsonPatch", (apply, "applyConfiguration")),
            other => e.not_supported(&at.child("patchType"), other, &["ApplyConfiguration", "JSONPatch"]),
        }
    }
    match spec.str_at(&["reinvocationPolicy"]) {
        None | Some("") => e.required(&at.child("reinvocationPolicy"), ""),
        Some("IfNeeded" | "Never") => {}
        Some(other) => e.not_supported(&at.child("reinvocationPolicy"), other, &["IfNeeded", "Never"]),
    }
}
