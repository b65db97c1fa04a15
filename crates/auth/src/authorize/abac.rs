//! ABAC: a file of policies, one a line (`--authorization-policy-file`), in the versions
//! `abac.authorization.kubernetes.io/v1beta1` and v0 (lines without a version).

use serde::Deserialize;

use super::{Attributes, PolicyRule};
use crate::{PolicyFileError, UserInfo};

const VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    api_version: Option<String>,
    kind: Option<String>,
    spec: Option<Policy>,
}

/// What somebody may do; `*` is all, empty is nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    #[serde(rename = "nonResourcePath")]
    path: String,
}

/// The policies of a file.
#[derive(Clone, Debug, Default)]
pub struct AbacPolicies(Vec<Policy>);

impl AbacPolicies {
    /// Reads a file's text; blank lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// The line that cannot be read.
    pub fn parse(text: &str) -> Result<Self, PolicyFileError> {
        let mut policies = Vec::new();
        for (i, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let wrong = |reason: String| PolicyFileError { line: i + 1, reason };
            let head: Line = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
            let mut policy = match (head.api_version.as_deref(), head.kind.as_deref()) {
                (Some(VERSION), Some("Policy")) => head.spec.unwrap_or_default(),
                (Some(VERSION), kind) => {
                    return Err(wrong(format!(
                        "no kind {:?} is registered for version {VERSION:?}",
                        kind.unwrap_or_default()
                    )));
                }
                // v0 has no version; an unknown one is read as v0, too, as upstream does.
                _ => v0(serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?),
            };
            if policy.user == "*" || policy.group == "*" {
                policy.group = UserInfo::AUTHENTICATED.to_owned();
                policy.user.clear();
            }
            policies.push(policy);
        }
        Ok(AbacPolicies(policies))
    }

    pub(super) fn allow(&self, a: &Attributes<'_>) -> bool {
        self.0.iter().any(|p| p.allows(a))
    }

    pub(super) fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        let mut rules = Vec::new();
        for p in self.0.iter().filter(|p| p.is_for(user) && (p.namespace == "*" || p.namespace == namespace)) {
            let verbs: Vec<String> =
                if p.readonly { ["get", "list", "watch"].map(str::to_owned).into() } else { vec!["*".to_owned()] };
            if !p.resource.is_empty() {
                rules.push(PolicyRule {
                    verbs: verbs.clone(),
                    api_groups: vec![p.api_group.clone()],
                    resources: vec![p.resource.clone()],
                    ..PolicyRule::default()
                });
            }
            if !p.path.is_empty() {
                rules.push(PolicyRule { verbs, non_resource_urls: vec![p.path.clone()], ..PolicyRule::default() });
            }
        }
        rules
    }
}

/// What a line of v0 means: what it leaves out is all.
fn v0(mut policy: Policy) -> Policy {
    if policy.user.is_empty() && policy.group.is_empty() {
        policy.group = UserInfo::AUTHENTICATED.to_owned();
    }
    if policy.namespace.is_empty() && policy.resource.is_empty() {
        policy.path = "*".to_owned();
    }
    for field in [&mut policy.namespace, &mut policy.resource] {
        if field.is_empty() {
            *field = "*".to_owned();
        }
    }
    policy.api_group = "*".to_owned();
    policy
}

impl Policy {
    fn is_for(&self, user: &UserInfo) -> bool {
        let named = !self.user.is_empty() || !self.group.is_empty();
        named
            && (self.user.is_empty() || self.user == user.name)
            && (self.group.is_empty() || user.in_group(&self.group))
    }

    fn allows(&self, a: &Attributes<'_>) -> bool {
        let reads = matches!(a.verb, "get" | "list" | "watch");
        if !self.is_for(a.user) || (self.readonly && !reads) {
            return false;
        }
        let is = |wanted: &str, value: &str| wanted == "*" || wanted == value;
        if a.resource_request {
            return is(&self.namespace, a.namespace) && is(&self.resource, a.resource) && is(&self.api_group, a.group);
        }
        is(&self.path, a.path) || self.path.ends_with('*') && a.path.starts_with(self.path.trim_end_matches('*'))
    }
}
