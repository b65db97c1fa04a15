//! IngressClass.

use ironkeel_object::Value;

use crate::error::Errors;
use crate::pod_spec::present;
use crate::rules::Generation;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules};

pub(crate) struct Rules;

impl rules::Rules for Rules {
    fn default(&self, o: &mut Value) {
        if o.at(&["spec", "parameters"]).is_some_and(|p| !p.is_null() && p.get("scope").is_none_or(Value::is_null)) {
            *o.slot(&["spec", "parameters", "scope"]) = "Cluster".into();
        }
    }
    fn generation(&self) -> Generation {
        Generation::Of(&["spec"])
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let controller = o.str_at(&["spec", "controller"]).unwrap_or_default();
        if controller.is_empty() {
            e.required(&at.child("controller"), "");
        } else if controller.len() > 250 {
            e.too_long(&at.child("controller"), 250);
            names::domain_prefixed_path(controller, &at.child("controller"), e);
        } else {
            names::domain_prefixed_path(controller, &at.child("controller"), e);
        }
        if let Some(p) = o.get("spec").and_then(|s| present(s, "parameters")) {
            let at = at.child("parameters");
            for f in ["kind", "name"] {
                match p.str_at(&[f]).unwrap_or_default() {
                    "" => e.required(&at.child(f), ""),
                    s => e.invalid_each(&at.child(f), s, names::path_segment(s, false)),
                }
            }
            if let Some(g) = p.str_at(&["apiGroup"]) {
                e.invalid_each(&at.child("apiGroup"), g, names::subdomain(g));
            }
            match (p.str_at(&["scope"]).unwrap_or_default(), p.str_at(&["namespace"])) {
                ("Namespace", None) => e.required(&at.child("namespace"), "`parameters.scope` is set to 'Namespace'"),
                ("Cluster", Some(_)) => e.forbidden(&at.child("namespace"), "`parameters.scope` is set to 'Cluster'"),
                ("Namespace", Some(n)) => e.invalid_each(&at.child("namespace"), n, names::label(n)),
                ("Cluster", None) => {}
                (s, _) => e.not_supported(&at.child("scope"), s, &["Cluster", "Namespace"]),
            }
        }
    }
    fn validate_update(&self, o: &Value, old: &Value, _subresource: Option<&str>, e: &mut Errors) {
        e.immutable(
            &Path::new("spec").child("controller"),
            o.at(&["spec", "controller"]),
            old.at(&["spec", "controller"]),
        );
    }
    fn tells_changes_first(&self) -> bool {
        true
    }
    fn depth(&self) -> Depth {
        Depth::Full
    }
    fn columns(&self) -> &'static str {
        "ingressClass"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let parameters = match o.get("spec").and_then(|s| present(s, "parameters")) {
            None => "<none>".to_owned(),
            Some(p) => {
                let group = p.str_at(&["apiGroup"]).map_or(String::new(), |g| format!(".{g}"));
                format!(
                    "{}{group}/{}",
                    p.str_at(&["kind"]).unwrap_or_default(),
                    p.str_at(&["name"]).unwrap_or_default()
                )
            }
        };
        vec![print::text(o, &["spec", "controller"], ""), parameters.into(), print::age(o, c)]
    }
}
