//! What extends or guards the API: APIService, CustomResourceDefinition, webhook configurations,
//! admission policies, certificate signing requests.

mod constraints;
pub mod expressions;
mod pod_certificates;
mod policies;
mod signing;
mod webhooks;
mod x509;

pub(crate) use pod_certificates::PodRequest;
pub(crate) use policies::{Policy, PolicyBinding};
pub(crate) use signing::{SigningRequest, TrustBundle};
pub(crate) use webhooks::Webhooks;

use ironkeel_object::{ObjectMeta, Value};

use crate::error::Errors;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules};

/// APIService.
pub(crate) struct ApiService;
impl rules::Rules for ApiService {
    fn default(&self, o: &mut Value) {
        if o.at(&["spec", "service"]).is_some_and(|s| !s.is_null() && s.get("port").is_none_or(Value::is_null)) {
            *o.slot(&["spec", "service", "port"]) = 443_i64.into();
        }
    }
    fn unconditional_update(&self) -> bool {
        false
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let text = |f: &str| o.str_at(&["spec", f]).unwrap_or_default();
        let wanted = format!("{}.{}", text("version"), text("group"));
        if !o.name().is_empty() && o.name() != wanted && names::path_segment(o.name(), false).is_empty() {
            let detail = format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"");
            e.invalid(&Path::new("metadata").child("name"), o.name(), &detail);
        }
        match text("group") {
            "" if text("version") != "v1" => {
                let detail = "only v1 may have an empty group and it better be legacy kube";
                e.required(&at.child("group"), detail);
            }
            "" => {}
            g => e.invalid_each(&at.child("group"), g, names::subdomain(g)),
        }
        e.invalid_each(&at.child("version"), text("version"), names::label_1035(text("version")));
        for (f, max) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
            let v = o.i64_at(&["spec", f]).unwrap_or(0);
            if v <= 0 || v > max {
                e.invalid(&at.child(f), v, &format!("must be positive and less than {max}"));
            }
        }
        let insecure = o.at(&["spec", "insecureSkipTLSVerify"]).and_then(Value::as_bool).unwrap_or(false);
        let bundle = !text("caBundle").is_empty();
        let skip = at.child("insecureSkipTLSVerify");
        let Some(service) = o.at(&["spec", "service"]).filter(|s| !s.is_null()) else {
            if bundle {
                let bytes = text("caBundle").trim_end_matches('=').len() * 3 / 4;
                e.invalid(&at.child("caBundle"), format!("{bytes} bytes"), "local APIServices may not have a caBundle");
            }
            if insecure {
                e.invalid(&skip, true, "local APIServices may not have insecureSkipTLSVerify");
            }
            return;
        };
        for f in ["namespace", "name"] {
            if service.str_at(&[f]).unwrap_or_default().is_empty() {
                e.required(&at.child("service").child(f), "");
            }
        }
        let port = service.i64_at(&["port"]).unwrap_or(0);
        for m in names::port_number(port) {
            e.invalid(&at.child("service").child("port"), port, &format!("port is not valid: {m}"));
        }
        if insecure && bundle {
            e.invalid(&skip, true, "may not be true if caBundle is present");
        }
    }
    fn validate_update(&self, o: &Value, _old: &Value, subresource: Option<&str>, e: &mut Errors) {
        for (i, c) in o.items_at(&["status", "conditions"]).iter().enumerate().filter(|_| subresource.is_some()) {
            let (at, status) = (Path::new("status").child("conditions"), c.str_at(&["status"]).unwrap_or_default());
            if !matches!(status, "True" | "False" | "Unknown") {
                e.not_supported(&at.index(i).child("status"), status, &["True", "False", "Unknown"]);
            }
        }
    }
    fn columns(&self) -> &'static str {
        "apiService"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let service = match o.at(&["spec", "service"]).filter(|s| !s.is_null()) {
            None => "Local".to_owned(),
            Some(s) => {
                let text = |f: &str| s.str_at(&[f]).unwrap_or_default();
                format!("{}/{}", text("namespace"), text("name"))
            }
        };
        let conditions = o.items_at(&["status", "conditions"]);
        let available = conditions.iter().find(|c| c.str_at(&["type"]) == Some("Available"));
        let text = |f: &str| available.and_then(|a| a.str_at(&[f])).unwrap_or_default();
        let state = match text("status") {
            "" => "Unknown".to_owned(),
            "True" => "True".to_owned(),
            other if text("reason").is_empty() => other.to_owned(),
            other => format!("{other} ({})", text("reason")),
        };
        vec![service.into(), state.into(), print::age(o, c)]
    }
    fn name_rule(&self) -> names::NameRule {
        names::NameRule::PathSegment
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
}
