//! `flowcontrol.apiserver.k8s.io`: which requests share a level of priority, and how much it may do.

use ironkeel_object::{Map, ObjectMeta, Value};

use crate::error::Errors;
use crate::pod_spec::{present, string};
use crate::repeats::repeated_text;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules, strategy};

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
const HASH_MAX_BITS: i64 = 60;
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// FlowSchema.
pub(crate) struct Flow;
impl rules::Rules for Flow {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        fill(spec, "matchingPrecedence", 1000);
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = o.get("spec").unwrap_or(&Value::Null);
        let precedence = print::number(spec, &["matchingPrecedence"]);
        let path = at.child("matchingPrecedence");
        if precedence <= 0 {
            e.invalid(&path, precedence, "must be a positive value");
        }
        if precedence > PRECEDENCE_MAX {
            e.invalid(&path, precedence, &format!("must not be greater than {PRECEDENCE_MAX}"));
        }
        if precedence == 1 && o.name() != "exempt" {
            e.invalid(&path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        if let Some(d) = present(spec, "distinguisherMethod") {
            let kind = d.str_at(&["type"]).unwrap_or_default();
            if !matches!(kind, "ByNamespace" | "ByUser") {
                let at = at.child("distinguisherMethod").child("type");
                e.not_supported(&at, d.clone(), &["ByNamespace", "ByUser"]);
            }
        }
        let level = spec.str_at(&["priorityLevelConfiguration", "name"]).unwrap_or_default();
        let path = at.child("priorityLevelConfiguration").child("name");
        if level.is_empty() {
            e.required(&path, "must reference a priority level");
        } else {
            e.invalid_each(&path, level, names::subdomain(level));
        }
        for (i, r) in spec.items_at(&["rules"]).iter().enumerate() {
            rule(r, &at.child("rules").index(i), e);
        }
    }
    fn validate_update(&self, o: &Value, _old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            conditions(o, e);
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "flowSchema"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let all = o.items_at(&["status", "conditions"]);
        let dangling = all.iter().find(|c| c.str_at(&["type"]) == Some("Dangling")).and_then(|c| c.str_at(&["status"]));
        vec![
            print::text(o, &["spec", "priorityLevelConfiguration", "name"], ""),
            print::number(o, &["spec", "matchingPrecedence"]).into(),
            print::text(o, &["spec", "distinguisherMethod", "type"], "<none>"),
            print::age(o, c),
            dangling.unwrap_or("?").into(),
        ]
    }
}

fn fill(map: &mut Map, field: &'static str, value: i64) {
    if map.get(field).is_none_or(|v| v.is_null() || v.as_i64() == Some(0)) {
        map.insert(field, value);
    }
}

fn conditions(o: &Value, e: &mut Errors) {
    let list = o.items_at(&["status", "conditions"]);
    let twice = repeated_text(list, "type");
    for (i, c) in list.iter().enumerate() {
        let at = Path::new("status").child("conditions").index(i).child("type");
        let kind = c.str_at(&["type"]).unwrap_or_default();
        if twice[i] {
            e.duplicate(&at, kind);
        }
        if kind.is_empty() {
            e.required(&at, "");
        }
    }
}

fn rule(r: &Value, at: &Path, e: &mut Errors) {
    let subjects = r.items_at(&["subjects"]);
    if subjects.is_empty() {
        e.required(&at.child("subjects"), "subjects must contain at least one value");
    }
    for (i, s) in subjects.iter().enumerate() {
        subject(s, &at.child("subjects").index(i), e);
    }
    let (resources, urls) = (r.items_at(&["resourceRules"]), r.items_at(&["nonResourceRules"]));
    if resources.is_empty() && urls.is_empty() {
        e.required(at, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (i, x) in resources.iter().enumerate() {
        resource_rule(x, &at.child("resourceRules").index(i), e);
    }
    for (i, x) in urls.iter().enumerate() {
        let at = at.child("nonResourceRules").index(i);
        verbs(x, &at, e);
        let list = x.items_at(&["nonResourceURLs"]);
        let path = at.child("nonResourceURLs");
        if list.is_empty() {
            e.required(&path, "nonResourceURLs must contain at least one value");
        } else if !wildcard(list, &path, "non-resource URLs", e) {
            for (j, u) in list.iter().enumerate() {
                url(u.as_str().unwrap_or_default(), &path.index(j), e);
            }
        }
    }
}

/// Whether a list holds `*`, which stands alone.
fn wildcard(list: &[Value], path: &Path, what: &str, e: &mut Errors) -> bool {
    let found = list.iter().any(|v| v.as_str() == Some("*"));
    if found && list.len() > 1 {
        e.invalid(path, list.to_vec(), &format!("if '*' is present, must not specify other {what}"));
    }
    found
}

fn verbs(r: &Value, at: &Path, e: &mut Errors) {
    let list = r.items_at(&["verbs"]);
    let path = at.child("verbs");
    if list.is_empty() {
        e.required(&path, "verbs must contain at least one value");
    } else if !wildcard(list, &path, "verbs", e) && !list.iter().all(|v| v.as_str().is_some_and(|v| VERBS.contains(&v)))
    {
        e.not_supported(&path, list.to_vec(), VERBS);
    }
}

fn url(u: &str, at: &Path, e: &mut Errors) {
    if u.is_empty() {
        e.invalid(at, u, "must not be empty");
    } else if !u.starts_with('/') {
        e.invalid(at, u, "must start with slash");
    } else if u.contains(' ') {
        e.invalid(at, u, "must not contain white-space");
    } else if u.contains("//") {
        e.invalid(at, u, "must not contain double slash");
    } else if u.find('*').is_some_and(|i| i + 1 != u.len() || !u[..i].ends_with('/')) {
        e.invalid(at, u, "wildcard can only do suffix matching");
    }
}

fn resource_rule(r: &Value, at: &Path, e: &mut Errors) {
    verbs(r, at, e);
    for (f, missing, what) in [
        ("apiGroups", "resource rules must supply at least one api group", "api groups"),
        ("resources", "resource rules must supply at least one resource", "resources"),
    ] {
        let list = r.items_at(&[f]);
        if list.is_empty() {
            e.required(&at.child(f), missing);
        } else {
            wildcard(list, &at.child(f), what, e);
        }
    }
    let list = r.items_at(&["namespaces"]);
    let path = at.child("namespaces");
    let cluster = r.get("clusterScope").and_then(Value::as_bool).unwrap_or(false);
    if list.is_empty() && !cluster {
        let text = "resource rules that are not cluster scoped must supply at least one namespace";
        e.required(&path, text);
    } else if !wildcard(list, &path, "namespaces", e) {
        for (i, n) in list.iter().enumerate() {
            let n = n.as_str().unwrap_or_default();
            for m in names::label(n) {
                e.invalid(&path.index(i), n, &format!("each member of this list must be '*' or a DNS-1123 label; {m}"));
            }
        }
    }
}

fn subject(s: &Value, at: &Path, e: &mut Errors) {
    const KINDS: &[(&str, &str)] = &[("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = s.str_at(&["kind"]).unwrap_or_default();
    if !KINDS.iter().any(|(k, _)| *k == kind) {
        e.not_supported(&at.child("kind"), kind, &["Group", "ServiceAccount", "User"]);
        return;
    }
    for (k, field) in KINDS {
        let at = at.child(field);
        let Some(who) = present(s, field) else {
            if *k == kind {
                e.required(&at, &format!("{field} is required when subject kind is '{k}'"));
            }
            continue;
        };
        if *k != kind {
            e.forbidden(&at, &format!("{field} is forbidden when subject kind is not '{k}'"));
            continue;
        }
        match string(who, "name") {
            None => e.required(&at.child("name"), ""),
            Some(n) if *k == "ServiceAccount" && n != "*" => {
                e.invalid_each(&at.child("name"), n, names::subdomain(n));
            }
            Some(_) => {}
        }
        if *k == "ServiceAccount" {
            match string(who, "namespace") {
                None => e.required(&at.child("namespace"), "must specify namespace for service account"),
                Some(n) => e.invalid_each(&at.child("namespace"), n, names::label(n)),
            }
        }
    }
}

/// PriorityLevelConfiguration.
pub(crate) struct Level;
impl rules::Rules for Level {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        for (part, shares) in [("exempt", 0), ("limited", 30)] {
            let Some(m) = spec.get_mut(part).and_then(Value::as_object_mut) else { continue };
            for (f, v) in [("nominalConcurrencyShares", shares), ("lendablePercent", 0_i64)] {
                if m.get(f).is_none_or(Value::is_null) {
                    m.insert(f, v);
                }
            }
            let queuing = m.get_mut("limitResponse").and_then(|l| l.get_mut("queuing")).and_then(Value::as_object_mut);
            if let Some(q) = queuing {
                for (f, v) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                    fill(q, f, v);
                }
            }
        }
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = o.get("spec").unwrap_or(&Value::Null);
        let kind = spec.str_at(&["type"]).unwrap_or_default();
        if (o.name() == "exempt") != (kind == "Exempt") {
            e.invalid(&at.child("type"), kind, "must be 'Exempt' if and only if `name` is 'exempt'");
        }
        let (exempt, limited) = (present(spec, "exempt"), present(spec, "limited"));
        match kind {
            "Exempt" => {
                if limited.is_some() {
                    e.forbidden(&at.child("limited"), "must be nil if the type is not Limited");
                }
                if let Some(x) = exempt {
                    shares(x, &at.child("exempt"), e);
                }
            }
            "Limited" => {
                if exempt.is_some() {
                    e.forbidden(&at.child("exempt"), "must be nil if the type is Limited");
                }
                match limited {
                    None => e.required(&at.child("limited"), "must not be empty when type is Limited"),
                    Some(l) => limits(l, &at.child("limited"), e),
                }
            }
            other => e.not_supported(&at.child("type"), other, &["Exempt", "Limited"]),
        }
    }
    fn validate_update(&self, o: &Value, _old: &Value, subresource: Option<&str>, e: &mut Errors) {
        if subresource == Some("status") {
            conditions(o, e);
        }
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn columns(&self) -> &'static str {
        "priorityLevel"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let none = || Value::from("<none>");
        let limited = o.at(&["spec", "limited"]).filter(|l| !l.is_null());
        let queuing = limited.and_then(|l| l.at(&["limitResponse", "queuing"])).filter(|q| !q.is_null());
        let of = |q: Option<&Value>, f: &str| q.map_or_else(none, |q| print::number(q, &[f]).into());
        vec![
            print::text(o, &["spec", "type"], ""),
            of(limited, "nominalConcurrencyShares"),
            of(queuing, "queues"),
            of(queuing, "handSize"),
            of(queuing, "queueLengthLimit"),
            print::age(o, c),
        ]
    }
}

fn shares(x: &Value, at: &Path, e: &mut Errors) {
    if let Some(n) = x.i64_at(&["nominalConcurrencyShares"]).filter(|n| *n < 0) {
        e.invalid(&at.child("nominalConcurrencyShares"), n, "must be a non-negative integer");
    }
    if let Some(n) = x.i64_at(&["lendablePercent"]).filter(|n| !(0..=100).contains(n)) {
        e.invalid(&at.child("lendablePercent"), n, "must be between 0 and 100, inclusive");
    }
}

fn limits(l: &Value, at: &Path, e: &mut Errors) {
    shares(l, at, e);
    if let Some(n) = l.i64_at(&["borrowingLimitPercent"]).filter(|n| *n < 0) {
        e.invalid(&at.child("borrowingLimitPercent"), n, "if specified, must be a non-negative integer");
    }
    let at = at.child("limitResponse");
    let queuing = l.at(&["limitResponse", "queuing"]).filter(|q| !q.is_null());
    match (l.str_at(&["limitResponse", "type"]).unwrap_or_default(), queuing) {
        ("Reject", Some(_)) => {
            e.forbidden(&at.child("queuing"), "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", None) => {
            e.required(&at.child("queuing"), "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", Some(q)) => queues(q, &at.child("queuing"), e),
        ("Reject", None) => {}
        (other, _) => e.not_supported(&at.child("type"), other, &["Queue", "Reject"]),
    }
}

fn queues(q: &Value, at: &Path, e: &mut Errors) {
    let number = |f: &str| print::number(q, &[f]);
    let (length, queues, hand) = (number("queueLengthLimit"), number("queues"), number("handSize"));
    if length <= 0 {
        e.invalid(&at.child("queueLengthLimit"), length, "must be positive");
    }
    if queues <= 0 {
        e.invalid(&at.child("queues"), queues, "must be positive");
    } else if queues > QUEUES_MAX {
        e.invalid(&at.child("queues"), queues, &format!("must not be greater than {QUEUES_MAX}"));
    }
    let path = at.child("handSize");
    let bits = ((queues as f64).log2() * hand as f64).ceil() as i64;
    if hand <= 0 {
        e.invalid(&path, hand, "must be positive");
    } else if hand > queues {
        e.invalid(&path, hand, &format!("should not be greater than queues ({queues})"));
    } else if bits > HASH_MAX_BITS {
        let text = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_MAX_BITS}"
        );
        e.invalid(&path, hand, &text);
    }
}
