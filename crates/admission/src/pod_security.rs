//! PodSecurity: the Pod Security Standards, enforced, warned of or noted by a namespace's labels.

mod checks;
mod namespace;
mod standard;

use ironkeel_object::Value;
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::Cluster;
pub(crate) use standard::is_setting;
use standard::{Policy, forbidden_detail};

pub use standard::PodSecurityConfig;
pub use standard::PodSecurityExemptions as Exemptions;

/// Where a Pod template stands in controllers.
const TEMPLATES: &[(&str, &str, &[&str])] = &[
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
    ("", "replicationcontrollers", &["spec", "template"]),
    ("", "podtemplates", &["template"]),
];
/// Subresources of Pods that change nothing of their spec that matters here.
const IGNORED: &[&str] = &["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// Whether an update changes nothing that the standards look at: images, and ephemeral containers.
fn insignificant(pod: &Value, old: &Value) -> bool {
    let images = |o: &Value, list: &str| -> Vec<Option<String>> {
        o.items_at(&["spec", list]).iter().map(|c| c.str_at(&["image"]).map(str::to_owned)).collect()
    };
    let ephemeral = old.items_at(&["spec", "ephemeralContainers"]);
    images(pod, "containers") == images(old, "containers")
        && images(pod, "initContainers") == images(old, "initContainers")
        && pod
            .items_at(&["spec", "ephemeralContainers"])
            .iter()
            .all(|c| ephemeral.iter().any(|o| o.get("name") == c.get("name") && o.get("image") == c.get("image")))
}

pub(crate) fn validate(
    c: &Cluster,
    config: &PodSecurityConfig,
    a: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    if !matches!(a.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    if a.is("", "namespaces") {
        return namespace::validate(c, config, a, object, old);
    }
    if !a.row.namespaced() {
        return Ok(());
    }
    let pod = a.row.group().is_empty() && a.row.plural() == "pods" && !IGNORED.contains(&a.subresource);
    let template = TEMPLATES.iter().find(|t| a.is(t.0, t.1)).and_then(|t| object.at(t.2));
    if !pod && template.is_none() {
        return Ok(());
    }
    if config.exempt.namespaces.iter().any(|n| n == a.namespace) {
        a.annotate("pod-security.kubernetes.io/exempt", "namespace");
        return Ok(());
    }
    if config.exempt.usernames.contains(&a.user.name) {
        a.annotate("pod-security.kubernetes.io/exempt", "user");
        return Ok(());
    }
    let Some(namespace) = c.get("", "namespaces", "", a.namespace) else {
        return match pod {
            true => Err(ApiError::internal(format!("failed to lookup namespace {:?}", a.namespace))),
            false => Ok(()),
        };
    };
    let (policy, errors) = Policy::of(&namespace, config);
    if errors.is_empty() && policy.is_privileged() {
        if pod {
            a.annotate("pod-security.kubernetes.io/enforce-policy", "privileged:latest");
        }
        return Ok(());
    }
    if pod && old.is_some_and(|old| insignificant(object, old)) {
        return Ok(());
    }
    let subject = template.unwrap_or(object);
    let (spec, annotations) = (&subject["spec"], subject.at(&["metadata", "annotations"]));
    let class = spec.str_at(&["runtimeClassName"]).unwrap_or_default();
    if !class.is_empty() && config.exempt.runtime_classes.iter().any(|r| r == class) {
        a.annotate("pod-security.kubernetes.io/exempt", "runtimeClass");
        return Ok(());
    }
    if !errors.is_empty() {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        a.annotate("pod-security.kubernetes.io/error", &format!("Failed to parse policy: {}", texts.join(", ")));
    }
    let mut refused = None;
    if pod {
        a.annotate("pod-security.kubernetes.io/enforce-policy", &policy.enforce.to_string());
        let found = policy.enforce.violations(spec, annotations);
        if !found.is_empty() {
            let detail = forbidden_detail(&found);
            refused = Some(a.forbidden(&format!("violates PodSecurity \"{}\": {detail}", policy.enforce)));
        }
    }
    let found = policy.audit.violations(spec, annotations);
    if !found.is_empty() {
        let text = format!("would violate PodSecurity \"{}\": {}", policy.audit, forbidden_detail(&found));
        a.annotate("pod-security.kubernetes.io/audit-violations", &text);
    }
    if let Some(error) = refused {
        return Err(error);
    }
    let found = policy.warn.violations(spec, annotations);
    if !found.is_empty() {
        a.warn(&format!("would violate PodSecurity \"{}\": {}", policy.warn, forbidden_detail(&found)));
    }
    Ok(())
}
