//! Probes and lifecycle hooks.

use ironkeel_object::Value;

use crate::core::service::port_or_name;
use crate::error::Errors;
use crate::pod_spec::{present, string};
use crate::{Path, names};

/// A liveness, readiness or startup probe.
pub(crate) fn probe(p: &Value, kind: &str, grace: Option<i64>, at: &Path, e: &mut Errors) {
    handler(p, &["exec", "httpGet", "tcpSocket", "grpc"], grace, at, e);
    for f in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        e.non_negative(&at.child(f), p.i64_at(&[f]));
    }
    let own_grace = p.i64_at(&["terminationGracePeriodSeconds"]);
    if let Some(g) = own_grace.filter(|g| *g <= 0) {
        e.invalid(&at.child("terminationGracePeriodSeconds"), g, "must be greater than 0");
    }
    if kind == "readinessProbe" {
        if let Some(g) = own_grace {
            e.invalid(&at.child("terminationGracePeriodSeconds"), g, "must not be set for readinessProbes");
        }
    } else if let Some(s) = p.i64_at(&["successThreshold"]).filter(|s| *s != 1) {
        e.invalid(&at.child("successThreshold"), s, "must be 1");
    }
}

/// `postStart`, `preStop` and `stopSignal`.
pub(crate) fn lifecycle(spec: &Value, l: &Value, grace: Option<i64>, at: &Path, e: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        if let Some(h) = present(l, hook) {
            handler(h, &["exec", "httpGet", "tcpSocket", "sleep"], grace, &at.child(hook), e);
        }
    }
    if let Some(signal) = string(l, "stopSignal") {
        let at = at.child("stopSignal");
        match spec.str_at(&["os", "name"]) {
            None => e.forbidden(&at, "may not be set for containers with empty `spec.os.name`"),
            Some("windows") if !matches!(signal, "SIGKILL" | "SIGTERM") => {
                e.not_supported(&at, signal, &["SIGKILL", "SIGTERM"]);
            }
            Some(_) => {}
        }
    }
}

fn handler(h: &Value, kinds: &[&str], grace: Option<i64>, at: &Path, e: &mut Errors) {
    let mut found = 0;
    for kind in kinds {
        let Some(action) = present(h, kind) else { continue };
        let at = at.child(kind);
        found += 1;
        if found > 1 {
            e.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" => {
                if action.items_at(&["command"]).is_empty() {
                    e.required(&at.child("command"), "");
                }
            }
            "httpGet" => http_get(action, &at, e),
            "tcpSocket" => port_or_name(action.get("port"), &at.child("port"), e),
            "grpc" => {
                let n = action.i64_at(&["port"]).unwrap_or(0);
                names::port_number(n).iter().for_each(|m| e.invalid(&at.child("port"), n, m));
            }
            _ => {
                let s = action.i64_at(&["seconds"]).unwrap_or(0);
                if let Some(g) = grace.filter(|g| s < 0 || s > *g) {
                    let text = format!("must be non-negative and less than terminationGracePeriodSeconds ({g})");
                    e.invalid(&at, s, &text);
                }
            }
        }
    }
    if found == 0 {
        e.required(at, "must specify a handler type");
    }
}

fn http_get(a: &Value, at: &Path, e: &mut Errors) {
    if string(a, "path").is_none() {
        e.required(&at.child("path"), "");
    }
    port_or_name(a.get("port"), &at.child("port"), e);
    let scheme = a.str_at(&["scheme"]).unwrap_or_default();
    if !matches!(scheme, "HTTP" | "HTTPS") {
        e.not_supported(&at.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for h in a.items_at(&["httpHeaders"]) {
        let name = h.str_at(&["name"]).unwrap_or_default();
        e.invalid_each(&at.child("httpHeaders"), name, names::header(name));
    }
}
