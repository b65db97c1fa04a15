//! PodSecurity: the Pod Security Standards, enforced, warned of or ignored by a namespace's labels.

mod checks;

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::Cluster;

const PREFIX: &str = "pod-security.kubernetes.io/";

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

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn of(namespace: &Value, mode: &str) -> Self {
        match namespace.label(&format!("{PREFIX}{mode}")) {
            Some("restricted") => Level::Restricted,
            Some("baseline") => Level::Baseline,
            _ => Level::Privileged,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

fn violations(level: Level, spec: &Value, annotations: Option<&Value>) -> Vec<String> {
    match level {
        Level::Privileged => Vec::new(),
        Level::Baseline => checks::baseline(spec, annotations, false),
        Level::Restricted => {
            let mut found = checks::baseline(spec, annotations, true);
            found.extend(checks::restricted(spec));
            found
        }
    }
}

pub(crate) fn validate(c: &Cluster, a: &Attributes<'_>, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    if !matches!(a.operation, Operation::Create | Operation::Update) || !a.row.namespaced() {
        return Ok(());
    }
    let pod =
        a.row.group().is_empty() && a.row.plural() == "pods" && matches!(a.subresource, "" | "ephemeralcontainers");
    let template = TEMPLATES.iter().find(|t| a.is(t.0, t.1)).and_then(|t| object.at(t.2));
    if !pod && template.is_none() {
        return Ok(());
    }
    if pod && old.is_some_and(|o| o["spec"] == object["spec"]) {
        return Ok(());
    }
    let Some(namespace) = c.get("", "namespaces", "", a.namespace) else { return Ok(()) };
    let subject = template.unwrap_or(object);
    let (spec, annotations) = (&subject["spec"], subject.at(&["metadata", "annotations"]));
    if pod {
        let level = Level::of(&namespace, "enforce");
        let found = violations(level, spec, annotations);
        if !found.is_empty() {
            return Err(a.forbidden(&format!(
                "violates PodSecurity \"{}:{}\": {}",
                level.name(),
                namespace.label(&format!("{PREFIX}enforce-version")).unwrap_or("latest"),
                found.join(", ")
            )));
        }
    }
    let level = Level::of(&namespace, "warn");
    let found = violations(level, spec, annotations);
    if !found.is_empty() {
        let version = namespace.label(&format!("{PREFIX}warn-version")).unwrap_or("latest");
        let mut warnings = a.warnings.lock();
        let text = format!("would violate PodSecurity \"{}:{version}\": {}", level.name(), found.join(", "));
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }
    Ok(())
}
