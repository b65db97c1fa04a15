//! What extends or guards the API: APIService, CustomResourceDefinition, webhook configurations,
//! admission policies, certificate signing requests.

use ironkeel_object::{ObjectMeta, Value};

use crate::error::Errors;
use crate::pod_spec::{present, string};
use crate::rules::Generation;
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
        let list = o.items_at(&["webhooks"]);
        for (i, w) in list.iter().enumerate() {
            let at = Path::new("webhooks").index(i);
            let name = w.str_at(&["name"]).unwrap_or_default();
            if name.is_empty() {
                e.required(&at.child("name"), "");
            } else if !names::subdomain(name).is_empty() {
                e.invalid(&at.child("name"), name, &names::subdomain(name).join(","));
            } else if name.split('.').count() < 3 {
                e.invalid(&at.child("name"), name, "should be a domain with at least three segments separated by dots");
            }
            if list[..i].iter().any(|x| x["name"] == w["name"]) {
                e.duplicate(&at.child("name"), name);
            }
            match w.str_at(&["sideEffects"]) {
                None => e.required(&at.child("sideEffects"), "must specify one of None, NoneOnDryRun"),
                Some("None" | "NoneOnDryRun") => {}
                Some(s) => e.not_supported(&at.child("sideEffects"), s, &["None", "NoneOnDryRun"]),
            }
            if let Some(t) = w.i64_at(&["timeoutSeconds"]).filter(|t| !(1..=30).contains(t)) {
                e.invalid(&at.child("timeoutSeconds"), t, "the timeout value must be between 1 and 30 seconds");
            }
            let versions = w.items_at(&["admissionReviewVersions"]);
            if versions.is_empty() {
                e.required(&at.child("admissionReviewVersions"), "must specify one of v1, v1beta1");
            }
            let config = w.get("clientConfig").unwrap_or(&Value::Null);
            if string(config, "url").is_some() == present(config, "service").is_some() {
                e.required(&at.child("clientConfig"), "exactly one of url or service is required");
            }
            for (j, r) in w.items_at(&["rules"]).iter().enumerate() {
                for f in ["operations", "apiGroups", "apiVersions", "resources"] {
                    if r.items_at(&[f]).is_empty() {
                        e.required(&at.child("rules").index(j).child(f), "");
                    }
                }
            }
        }
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

/// Admission policies of both sorts; their columns are the plain ones.
pub(crate) struct Policy;
impl rules::Rules for Policy {
    fn default(&self, o: &mut Value) {
        let Some(spec) = strategy::spec(o) else { return };
        if spec.get("failurePolicy").is_none_or(Value::is_null) {
            spec.insert("failurePolicy", "Fail");
        }
        if let Some(m) = spec.get_mut("matchConstraints").filter(|m| !m.is_null()) {
            match_resources(m);
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
}

/// Bindings of admission policies.
pub(crate) struct PolicyBinding;
impl rules::Rules for PolicyBinding {
    fn default(&self, o: &mut Value) {
        let m = o.get_mut("spec").and_then(|s| s.get_mut("matchResources")).filter(|m| !m.is_null());
        if let Some(m) = m {
            match_resources(m);
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
}

fn match_resources(m: &mut Value) {
    if m.get("matchPolicy").is_none_or(Value::is_null) {
        *m.slot(&["matchPolicy"]) = "Equivalent".into();
    }
    for f in ["namespaceSelector", "objectSelector"] {
        if m.get(f).is_none_or(Value::is_null) {
            *m.slot(&[f]) = Value::object();
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for r in m.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if r.get("scope").is_none_or(Value::is_null) {
                *r.slot(&["scope"]) = "*".into();
            }
        }
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
