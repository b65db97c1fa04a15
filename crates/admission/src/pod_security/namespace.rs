//! Namespaces: labels must make sense, and who tightens a namespace hears of the Pods that stay in it.

use std::collections::{BTreeMap, BTreeSet};

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes};

use super::standard::{Level, PodSecurityConfig, Policy, Standard};
use crate::Cluster;

/// Pods of a namespace that are looked at when its level is raised.
const PODS_MAX: usize = 3_000;

pub(super) fn validate(
    c: &Cluster,
    config: &PodSecurityConfig,
    a: &Attributes<'_>,
    namespace: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let (new, errors) = Policy::of(namespace, config);
    let before = old.map(|o| Policy::of(o, config));
    let known = before.as_ref().is_some_and(|(_, had)| *had == errors);
    if !errors.is_empty() && !known {
        return Err(ApiError::invalid("", "Namespace", namespace.name(), &errors));
    }
    let Some((before, _)) = before else { return Ok(()) };
    let relaxed = new.enforce.version == before.enforce.version && new.enforce.level <= before.enforce.level;
    let exempt = config.exempt.namespaces.iter().any(|n| n == namespace.name());
    if new.enforce == before.enforce || new.enforce.level == Level::Privileged || relaxed || exempt {
        return Ok(());
    }
    for warning in pods(c, config, namespace.name(), &new.enforce) {
        a.warn(&warning);
    }
    Ok(())
}

/// What the Pods of a namespace do that its new level forbids.
fn pods(c: &Cluster, config: &PodSecurityConfig, namespace: &str, enforce: &Standard) -> Vec<String> {
    let all = c.list("", "pods", namespace);
    let (mut first, mut more, mut controllers) = (Vec::new(), Vec::new(), BTreeSet::new());
    for pod in &all {
        let class = pod.str_at(&["spec", "runtimeClassName"]).unwrap_or_default();
        if config.exempt.runtime_classes.iter().any(|r| r == class) {
            continue;
        }
        match pod.owner_references().into_iter().find(|r| r.controller) {
            Some(owner) if !controllers.insert(owner.uid.clone()) => more.push(pod),
            _ => first.push(pod),
        }
    }
    first.extend(more);
    let total = first.len();
    first.truncate(PODS_MAX);
    let mut found: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for pod in &first {
        let violations = enforce.violations(&pod["spec"], pod.at(&["metadata", "annotations"]));
        if !violations.is_empty() {
            let reasons: Vec<&str> = violations.iter().map(|v| v.split(" (").next().unwrap_or(v)).collect();
            found.entry(reasons.join(", ")).or_default().insert(pod.name());
        }
    }
    let mut warnings = Vec::new();
    if first.len() < total {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {} of {total} existing pods",
            first.len()
        ));
    }
    if found.is_empty() {
        return warnings;
    }
    warnings.push(format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
    ));
    let mut lines: Vec<String> = found
        .iter()
        .map(|(reasons, names)| {
            let name = names.first().copied().unwrap_or_default();
            match names.len() {
                1 => format!("{name}: {reasons}"),
                2 => format!("{name} (and 1 other pod): {reasons}"),
                n => format!("{name} (and {} other pods): {reasons}", n - 1),
            }
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}
