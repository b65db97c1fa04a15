//! `rbac.authorization.k8s.io`: roles and bindings of both scopes.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::names::NameRule;
use crate::pod_spec::{present, string};
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules, selector};

/// Role and ClusterRole; their columns are the plain ones.
pub(crate) struct Role {
    pub(crate) cluster: bool,
}

impl rules::Rules for Role {
    fn validate(&self, o: &Value, e: &mut Errors) {
        for (i, r) in o.items_at(&["rules"]).iter().enumerate() {
            let at = Path::new("rules").index(i);
            let filled = |f: &str| !r.items_at(&[f]).is_empty();
            if !filled("verbs") {
                e.required(&at.child("verbs"), "verbs must contain at least one value");
            }
            if filled("nonResourceURLs") {
                let urls = r["nonResourceURLs"].clone();
                if !self.cluster {
                    let text = "namespaced rules cannot apply to non-resource URLs";
                    e.invalid(&at.child("nonResourceURLs"), urls.clone(), text);
                }
                if filled("apiGroups") || filled("resources") || filled("resourceNames") {
                    let text = "rules cannot apply to both regular resources and non-resource URLs";
                    e.invalid(&at.child("nonResourceURLs"), urls, text);
                }
                continue;
            }
            if !filled("apiGroups") {
                e.required(&at.child("apiGroups"), "resource rules must supply at least one api group");
            }
            if !filled("resources") {
                e.required(&at.child("resources"), "resource rules must supply at least one resource");
            }
        }
        let Some(rule) = present(o, "aggregationRule") else { return };
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        let list = rule.items_at(&["clusterRoleSelectors"]);
        if list.is_empty() {
            e.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        for (i, s) in list.iter().enumerate() {
            let before = e.len();
            selector::label_selector(Some(s), &path.index(i), e);
            if e.len() > before {
                e.invalid_as(&path.index(i), "null", "invalid label selector.");
            }
        }
    }
    fn create_on_update(&self) -> bool {
        true
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}

/// RoleBinding and ClusterRoleBinding.
pub(crate) struct Binding {
    pub(crate) cluster: bool,
}

const GROUP: &str = "rbac.authorization.k8s.io";

impl rules::Rules for Binding {
    fn default(&self, o: &mut Value) {
        if o.get("roleRef").is_none_or(|r| string(r, "apiGroup").is_none()) {
            *o.slot(&["roleRef", "apiGroup"]) = GROUP.into();
        }
        for s in o.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
            if string(s, "apiGroup").is_none() && matches!(s.str_at(&["kind"]), Some("User" | "Group")) {
                *s.slot(&["apiGroup"]) = GROUP.into();
            }
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("roleRef");
        let role = |f: &str| o.str_at(&["roleRef", f]).unwrap_or_default();
        if role("apiGroup") != GROUP {
            e.not_supported(&at.child("apiGroup"), role("apiGroup"), &[GROUP]);
        }
        let kinds: &[&str] = if self.cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
        if !kinds.contains(&role("kind")) {
            e.not_supported(&at.child("kind"), role("kind"), kinds);
        }
        if role("name").is_empty() {
            e.required(&at.child("name"), "");
        } else {
            e.invalid_each(&at.child("name"), role("name"), names::path_segment(role("name"), false));
        }
        for (i, s) in o.items_at(&["subjects"]).iter().enumerate() {
            let at = Path::new("subjects").index(i);
            let text = |f: &str| s.str_at(&[f]).unwrap_or_default();
            if text("name").is_empty() {
                e.required(&at.child("name"), "");
            }
            let group = text("apiGroup");
            match text("kind") {
                "ServiceAccount" => {
                    if !text("name").is_empty() {
                        e.invalid_each(&at.child("name"), text("name"), names::subdomain(text("name")));
                    }
                    if !group.is_empty() {
                        e.not_supported(&at.child("apiGroup"), group, &[""]);
                    }
                    if self.cluster && text("namespace").is_empty() {
                        e.required(&at.child("namespace"), "");
                    }
                }
                "User" | "Group" if group != GROUP => e.not_supported(&at.child("apiGroup"), group, &[GROUP]),
                "User" | "Group" => {}
                k => e.not_supported(&at.child("kind"), k, &["ServiceAccount", "User", "Group"]),
            }
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        let (n, b) = (o.get("roleRef"), old.get("roleRef"));
        if !crate::equality::same(n, b) {
            e.invalid(&Path::new("roleRef"), n.cloned().unwrap_or_default(), "cannot change roleRef");
        }
    }
    fn create_on_update(&self) -> bool {
        true
    }
    fn depth(&self) -> Depth {
        Depth::Nothing
    }
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
    fn columns(&self) -> &'static str {
        if self.cluster { "clusterRoleBindings" } else { "roleBindings" }
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let role = |f: &str| o.str_at(&["roleRef", f]).unwrap_or_default();
        let subjects = |kind: &str| {
            let of_kind = o.items_at(&["subjects"]).iter().filter(|s| s.str_at(&["kind"]) == Some(kind));
            let text = |s: &Value| {
                let name = s.str_at(&["name"]).unwrap_or_default();
                if kind == "ServiceAccount" {
                    format!("{}/{name}", s.str_at(&["namespace"]).unwrap_or_default())
                } else {
                    name.to_owned()
                }
            };
            Value::from(of_kind.map(text).collect::<Vec<_>>().join(", "))
        };
        vec![
            format!("{}/{}", role("kind"), role("name")).into(),
            print::age(o, c),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    }
}
