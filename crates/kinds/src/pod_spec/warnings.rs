//! Warnings about pod specs: what works, but hardly as meant.

use ironkeel_object::{ObjectMeta, Value};

use crate::pod_spec::string;

/// Of a pod or a template (anything with `metadata` and `spec`); `prefix` is the path before `spec`.
pub(crate) fn warnings(holder: Option<&Value>, prefix: &str) -> Vec<String> {
    let Some(o) = holder else { return Vec::new() };
    let mut w = Vec::new();
    let spec = &o["spec"];
    for key in spec.get("nodeSelector").and_then(Value::as_object).into_iter().flat_map(|m| m.keys()) {
        let replacement = match key.as_ref() {
            "beta.kubernetes.io/arch" => "kubernetes.io/arch",
            "beta.kubernetes.io/os" => "kubernetes.io/os",
            "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
            "beta.kubernetes.io/instance-type" => "node.kubernetes.io/instance-type",
            _ => continue,
        };
        w.push(format!("{prefix}spec.nodeSelector[{key}]: deprecated since v1.14; use \"{replacement}\" instead"));
    }
    for (i, a) in spec.items_at(&["hostAliases"]).iter().enumerate() {
        if spec.items_at(&["hostAliases"])[..i].iter().any(|b| b["ip"] == a["ip"]) {
            let ip = a.str_at(&["ip"]).unwrap_or_default();
            w.push(format!("{prefix}spec.hostAliases[{i}].ip: duplicate ip \"{ip}\""));
        }
    }
    for (i, v) in spec.items_at(&["volumes"]).iter().enumerate() {
        if v.get("gitRepo").is_some_and(|g| !g.is_null()) {
            w.push(format!(
                "{prefix}spec.volumes[{i}].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"
            ));
        }
    }
    for (i, s) in spec.items_at(&["imagePullSecrets"]).iter().enumerate() {
        if string(s, "name").is_none() {
            w.push(format!("{prefix}spec.imagePullSecrets[{i}].name: invalid empty name \"\""));
        }
    }
    for list in ["initContainers", "containers"] {
        for (i, c) in spec.items_at(&[list]).iter().enumerate() {
            container(c, &format!("{prefix}spec.{list}[{i}]"), &mut w);
        }
    }
    for key in ["seccomp.security.alpha.kubernetes.io/pod", "security.alpha.kubernetes.io/sysctls"] {
        if o.annotation(key).is_some() {
            w.push(format!("{prefix}metadata.annotations[{key}]: non-functional in v1.27+; use the \"securityContext\" field instead"));
        }
    }
    if spec.i64_at(&["terminationGracePeriodSeconds"]).is_some_and(|s| s < 0) {
        w.push(format!("{prefix}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    w
}

fn container(c: &Value, at: &str, w: &mut Vec<String>) {
    let env = c.items_at(&["env"]);
    for (i, v) in env.iter().enumerate() {
        if env[..i].iter().any(|x| x["name"] == v["name"]) {
            let name = v.str_at(&["name"]).unwrap_or_default();
            w.push(format!(
                "{at}.env[{i}]: hides previous definition of \"{name}\", which may be dropped when using apply"
            ));
        }
    }
    for kind in ["requests", "limits"] {
        for (name, q) in c.at(&["resources", kind]).and_then(Value::as_object).into_iter().flat_map(|m| m.iter()) {
            let Some(q) = crate::resources::quantity(Some(q)) else { continue };
            if matches!(name.as_ref(), "memory" | "ephemeral-storage") && q.milli_value() % 1000 != 0 {
                w.push(format!(
                    "{at}.resources.{kind}[{name}]: fractional byte value \"{q}\" is invalid, must be an integer"
                ));
            }
        }
    }
}
