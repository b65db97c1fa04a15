//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration.

use ironkeel_object::Value;

use super::constraints;
use super::expressions;
use crate::error::{Errors, shown};
use crate::pod_spec::{present, string};
use crate::repeats::{repeated, repeated_text, repeated_whole};
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules, selector};

const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const NO_SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];

/// MutatingWebhookConfiguration and ValidatingWebhookConfiguration.
pub(crate) struct Webhooks {
    pub(crate) mutating: bool,
}
impl rules::Rules for Webhooks {
    fn default(&self, o: &mut Value) {
        for w in o.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(m) = w.as_object_mut() else { continue };
            for (f, v) in [("failurePolicy", "Fail"), ("matchPolicy", "Equivalent")] {
                if m.get(f).is_none_or(Value::is_null) {
                    m.insert(f, v);
                }
            }
            for f in ["namespaceSelector", "objectSelector"] {
                if m.get(f).is_none_or(Value::is_null) {
                    m.insert(f, Value::object());
                }
            }
            if m.get("timeoutSeconds").is_none_or(Value::is_null) {
                m.insert("timeoutSeconds", 10_i64);
            }
            if self.mutating && m.get("reinvocationPolicy").is_none_or(Value::is_null) {
                m.insert("reinvocationPolicy", "Never");
            }
            for r in m.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
                if r.get("scope").is_none_or(Value::is_null) {
                    *r.slot(&["scope"]) = "*".into();
                }
            }
            if let Some(s) = m.get_mut("clientConfig").and_then(|c| c.get_mut("service")).filter(|s| !s.is_null())
                && s.get("port").is_none_or(Value::is_null)
            {
                *s.slot(&["port"]) = 443_i64.into();
            }
        }
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["webhooks"])
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        self.check(o, None, e);
    }
    fn validate_update(&self, o: &Value, old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource.is_none() {
            self.check(o, Some(old), e);
        }
    }
    fn revalidates(&self, _subresource: Option<&str>) -> bool {
        false
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
    fn columns(&self) -> &'static str {
        if self.mutating { "mutatingWebhook" } else { "validatingWebhook" }
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        vec![(o.items_at(&["webhooks"]).len() as i64).into(), print::age(o, c)]
    }
}

/// What an object has already may stay, though it is not accepted any more.
struct Lenient {
    side_effects: bool,
    versions: bool,
    names: bool,
    conditions: bool,
}

impl Lenient {
    fn of(new: &[Value], old: Option<&Value>) -> Self {
        let Some(old) = old.map(|o| o.items_at(&["webhooks"])) else {
            return Lenient { side_effects: false, versions: false, names: false, conditions: false };
        };
        let text = |w: &Value, key: &str| w.str_at(&[key]).unwrap_or_default().to_owned();
        let known = |w: &Value| {
            let versions = w.items_at(&["admissionReviewVersions"]);
            versions.is_empty() || versions.iter().any(|v| v.as_str().is_some_and(|v| REVIEW_VERSIONS.contains(&v)))
        };
        Lenient {
            side_effects: !old.iter().all(|w| NO_SIDE_EFFECTS.contains(&text(w, "sideEffects").as_str())),
            versions: !old.iter().all(known),
            names: repeated_text(old, "name").contains(&true),
            conditions: new.len() == old.len()
                && new.iter().zip(old).all(|(n, o)| n.get("matchConditions") == o.get("matchConditions")),
        }
    }
}

impl Webhooks {
    fn check(&self, o: &Value, old: Option<&Value>, e: &mut Errors) {
        let list = o.items_at(&["webhooks"]);
        let lenient = Lenient::of(list, old);
        let twice = repeated(list, "name");
        for (i, w) in list.iter().enumerate() {
            let at = Path::new("webhooks").index(i);
            self.webhook(w, &lenient, &at, e);
            versions(w, &lenient, &at.child("admissionReviewVersions"), e);
            let name = w.str_at(&["name"]).unwrap_or_default();
            if !lenient.names && !name.is_empty() && twice[i] {
                e.duplicate(&at.child("name"), name);
            }
        }
    }

    fn webhook(&self, w: &Value, lenient: &Lenient, at: &Path, e: &mut Errors) {
        let name = w.str_at(&["name"]).unwrap_or_default();
        if name.is_empty() {
            e.required(&at.child("name"), "");
        } else if !names::subdomain(name).is_empty() {
            e.invalid(&at.child("name"), name, &names::subdomain(name).join(","));
        } else if name.split('.').count() < 3 {
            e.invalid(&at.child("name"), name, "should be a domain with at least three segments separated by dots");
        }
        for (j, rule) in w.items_at(&["rules"]).iter().enumerate() {
            constraints::rule(rule, &at.child("rules").index(j), e);
        }
        let mut one_of = |field: &str, allowed: &[&str]| {
            if let Some(text) = w.str_at(&[field]).filter(|t| !allowed.contains(t)) {
                e.not_supported(&at.child(field), text, allowed);
            }
        };
        one_of("failurePolicy", &["Fail", "Ignore"]);
        one_of("matchPolicy", &["Equivalent", "Exact"]);
        if self.mutating {
            one_of("reinvocationPolicy", &["IfNeeded", "Never"]);
        }
        let allowed: &[&str] =
            if lenient.side_effects { &["None", "NoneOnDryRun", "Some", "Unknown"] } else { NO_SIDE_EFFECTS };
        match w.str_at(&["sideEffects"]) {
            None => {
                let detail = format!("must specify one of {}", allowed.join(", "));
                e.required(&at.child("sideEffects"), &detail);
            }
            Some(s) if !allowed.contains(&s) => e.not_supported(&at.child("sideEffects"), s, allowed),
            Some(_) => {}
        }
        if let Some(t) = w.i64_at(&["timeoutSeconds"]).filter(|t| !(1..=30).contains(t)) {
            e.invalid(&at.child("timeoutSeconds"), t, "the timeout value must be between 1 and 30 seconds");
        }
        for field in ["namespaceSelector", "objectSelector"] {
            selector::label_selector(present(w, field), &at.child(field), e);
        }
        client_config(w.get("clientConfig").unwrap_or(&Value::Null), &at.child("clientConfig"), e);
        if !lenient.conditions {
            let env = &expressions::MATCH_CONDITIONS;
            constraints::match_conditions(w, env, &at.child("matchConditions"), e);
        }
    }
}

fn versions(w: &Value, lenient: &Lenient, at: &Path, e: &mut Errors) {
    let list = w.items_at(&["admissionReviewVersions"]);
    if list.is_empty() {
        e.required(at, "must specify one of v1, v1beta1");
        return;
    }
    let mut known = false;
    let twice = repeated_whole(list);
    for (i, v) in list.iter().enumerate() {
        let text = v.as_str().unwrap_or_default();
        if twice[i] {
            e.invalid(&at.index(i), text, "duplicate version");
            continue;
        }
        e.invalid_each(&at.index(i), text, names::label_1035(text));
        known |= REVIEW_VERSIONS.contains(&text);
    }
    if !known && !lenient.versions {
        let shown = shown(&Value::Array(list.to_vec()));
        e.invalid_as(at, &shown, "must include at least one of v1, v1beta1");
    }
}

/// Where a webhook listens: `url` or `service`.
pub(super) fn client_config(config: &Value, at: &Path, e: &mut Errors) {
    match (config.str_at(&["url"]), present(config, "service")) {
        (Some(_), Some(_)) | (None, None) => e.required(at, "exactly one of url or service is required"),
        (Some(text), None) => url(text, &at.child("url"), e),
        (None, Some(service)) => service_reference(service, &at.child("service"), e),
    }
}

fn url(text: &str, at: &Path, e: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let scheme_end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
    let (scheme, rest) = match scheme_end.filter(|i| text[*i..].starts_with(':')) {
        Some(i) => (&text[..i], &text[i + 1..]),
        None => ("", text),
    };
    let (rest, has_host) = rest.strip_prefix("//").map_or((rest, false), |r| (r, true));
    if scheme != "https" {
        e.invalid(at, scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let end = if has_host { rest.find(['/', '?', '#']).unwrap_or(rest.len()) } else { 0 };
    let (authority, tail) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.is_empty() {
        e.invalid(at, host, &format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = authority.rsplit_once('@') {
        e.invalid(at, user, "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = tail.split_once('#') {
        e.invalid(at, fragment, "fragments are not permitted in the URL");
    }
    let before = tail.split('#').next().unwrap_or_default();
    if let Some((_, query)) = before.split_once('?') {
        e.invalid(at, query, "query parameters are not permitted in the URL");
    }
}

fn service_reference(service: &Value, at: &Path, e: &mut Errors) {
    // Upstream takes the one for the other.
    if string(service, "name").is_none() {
        e.required(&at.child("namespace"), "");
    }
    if string(service, "namespace").is_none() {
        e.required(&at.child("name"), "");
    }
    let port = service.i64_at(&["port"]).unwrap_or(443);
    for message in names::port_number(port) {
        let detail = format!("port is not valid: {message}");
        e.invalid(&at.child("port"), port, &detail);
    }
    let Some(path) = service.str_at(&["path"]) else { return };
    let at = at.child("path");
    if path == "/" || path.is_empty() {
        return;
    }
    if path == "//" {
        e.invalid(&at, path, "segment[0] may not be empty");
        return;
    }
    if !path.starts_with('/') {
        e.invalid(&at, path, "must start with a '/'");
    }
    // As upstream: the first character is taken for the slash, whatever it is.
    let trimmed = path.char_indices().nth(1).map_or("", |(i, _)| &path[i..]);
    let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
    for (i, step) in trimmed.split('/').enumerate() {
        if step.is_empty() {
            e.invalid(&at, path, &format!("segment[{i}] may not be empty"));
            continue;
        }
        for message in names::subdomain(step) {
            e.invalid(&at, path, &format!("segment[{i}]: {message}"));
        }
    }
}
