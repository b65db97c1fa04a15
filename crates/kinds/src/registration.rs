//! What extends or guards the API: APIService, CustomResourceDefinition, webhook configurations,
//! admission policies, certificate signing requests.

mod constraints;
pub mod expressions;
mod policies;
mod webhooks;

pub(crate) use policies::{Policy, PolicyBinding};
pub(crate) use webhooks::Webhooks;

use ironkeel_object::{ObjectMeta, Value};

use crate::error::Errors;
use crate::pod_spec::string;
use crate::structural::Depth;
use crate::{Path, TableContext, names, print, rules, strategy};

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
        if o.name() != wanted {
            let detail = format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"");
            e.invalid(&Path::new("metadata").child("name"), o.name(), &detail);
        }
        if text("version").is_empty() {
            e.required(&at.child("version"), "");
        }
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
                e.invalid(&at.child("caBundle"), text("caBundle"), "local APIServices may not have a caBundle");
            }
            if insecure {
                e.invalid(&skip, "true", "local APIServices may not have insecureSkipTLSVerify");
            }
            return;
        };
        for f in ["namespace", "name"] {
            if service.str_at(&[f]).unwrap_or_default().is_empty() {
                e.required(&at.child("service").child(f), "");
            }
        }
        if insecure && bundle {
            e.invalid(&skip, "true", "may not be true if caBundle is present");
        }
    }
    fn name_rule(&self) -> names::NameRule {
        names::NameRule::PathSegment
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
}

/// CertificateSigningRequest.
pub(crate) struct SigningRequest;
impl rules::Rules for SigningRequest {
    fn default(&self, o: &mut Value) {
        if o.at(&["spec", "usages"]).is_none_or(Value::is_null) && o.get("spec").is_some() {
            *o.slot(&["spec", "usages"]) = vec!["digital signature", "key encipherment"].into();
        }
    }
    fn owns_update(&self, subresource: Option<&str>) -> bool {
        subresource == Some("approval")
    }
    fn prepare_update(&self, o: &mut Value, old: &Value, subresource: Option<&str>) {
        strategy::keep(o, old, "spec");
        if subresource == Some("approval") {
            let conditions = o.at(&["status", "conditions"]).cloned();
            strategy::keep(o, old, "status");
            strategy::keep_metadata_for_status(o, old);
            if let Some(c) = conditions {
                *o.slot(&["status", "conditions"]) = c;
            }
        }
    }
    fn validate(&self, o: &Value, e: &mut Errors) {
        let at = Path::new("spec");
        let spec = o.get("spec").unwrap_or(&Value::Null);
        if string(spec, "request").is_none() {
            e.invalid(&at.child("request"), "", "PEM block type must be CERTIFICATE REQUEST");
        }
        if spec.items_at(&["usages"]).is_empty() {
            e.required(&at.child("usages"), "usages must be specified");
        }
        match string(spec, "signerName") {
            None => e.required(&at.child("signerName"), ""),
            Some(s) if !s.contains('/') => {
                e.invalid(
                    &at.child("signerName"),
                    s,
                    "must be a fully qualified domain and path of the form 'example.com/signer-name'",
                );
            }
            Some(_) => {}
        }
        if let Some(s) = spec.i64_at(&["expirationSeconds"]).filter(|s| *s < 600) {
            e.invalid(
                &at.child("expirationSeconds"),
                s,
                "may not specify a duration less than 600 seconds (10 minutes)",
            );
        }
    }
    fn depth(&self) -> Depth {
        Depth::Enums
    }
    fn columns(&self) -> &'static str {
        "certificateSigningRequest"
    }
    fn cells(&self, o: &Value, c: &TableContext) -> Vec<Value> {
        let conditions = o.items_at(&["status", "conditions"]);
        let has = |kind: &str| conditions.iter().any(|c| c.str_at(&["type"]) == Some(kind));
        let mut status = if has("Denied") {
            "Denied"
        } else if has("Approved") {
            "Approved"
        } else {
            "Pending"
        }
        .to_owned();
        if has("Failed") {
            status.push_str(",Failed");
        }
        if string(&o["status"], "certificate").is_some() {
            status.push_str(",Issued");
        }
        let duration = o.i64_at(&["spec", "expirationSeconds"]).map_or("<none>".to_owned(), print::human_duration);
        vec![
            print::age(o, c),
            print::text(o, &["spec", "signerName"], "<none>"),
            print::text(o, &["spec", "username"], ""),
            duration.into(),
            status.into(),
        ]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        (path == "spec.signerName").then(|| o.str_at(&["spec", "signerName"]).unwrap_or_default().to_owned())
    }
}

/// ClusterTrustBundle.
pub(crate) struct TrustBundle;
impl rules::Rules for TrustBundle {
    fn unconditional_update(&self) -> bool {
        false
    }
    fn name_rule(&self) -> names::NameRule {
        names::NameRule::Any
    }
    fn storage_version(&self) -> Option<(&'static str, &'static str)> {
        Some(("certificates.k8s.io", "v1beta1"))
    }
    fn columns(&self) -> &'static str {
        "clusterTrustBundle"
    }
    fn cells(&self, o: &Value, _c: &TableContext) -> Vec<Value> {
        vec![print::text(o, &["spec", "signerName"], "<none>")]
    }
    fn field(&self, o: &Value, path: &str) -> Option<String> {
        (path == "spec.signerName").then(|| o.str_at(&["spec", "signerName"]).unwrap_or_default().to_owned())
    }
}
