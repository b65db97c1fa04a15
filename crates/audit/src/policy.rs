//! Which requests are recorded, and how much of them: the first rule that matches says.

use ironkeel_object::Value;

use crate::error::AuditError;
use crate::event::{Level, Stage};

/// A request as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// User name; empty where nobody was authenticated.
    pub user: &'a str,
    /// The user's groups.
    pub groups: &'a [String],
    /// `get`, `list`, …
    pub verb: &'a str,
    /// Whether this is about a resource.
    pub is_resource: bool,
    /// API group; empty for core.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Namespace; empty cluster-wide.
    pub namespace: &'a str,
    /// Name; empty for collections.
    pub name: &'a str,
    /// The path.
    pub path: &'a str,
}

/// What a policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How much is recorded.
    pub level: Level,
    omitted: u8,
    /// Leave `metadata.managedFields` out of recorded objects.
    pub omit_managed_fields: bool,
}

impl Verdict {
    /// Whether a record is made at this stage.
    pub fn wants(&self, stage: Stage) -> bool {
        self.level > Level::None && self.omitted & stage.bit() == 0
    }
}

#[derive(Debug)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    verdict: Verdict,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
}

/// An audit.k8s.io/v1 Policy.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    otherwise: Verdict,
}

fn strings(v: &Value, key: &str) -> Vec<String> {
    v.items_at(&[key]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn stages(v: &Value, at: &str, faults: &mut Vec<String>) -> u8 {
    let mut bits = 0;
    for (i, name) in strings(v, "omitStages").iter().enumerate() {
        match Stage::parse(name) {
            Some(stage) => bits |= stage.bit(),
            None => faults.push(format!(
                "{at}omitStages[{i}]: Invalid value: {name:?}: allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic"
            )),
        }
    }
    bits
}

impl Policy {
    /// Reads YAML or JSON.
    ///
    /// # Errors
    /// Of another kind or version, without rules, or with values that are not allowed.
    pub fn read(bytes: &[u8]) -> Result<Policy, AuditError> {
        let (policy, _) = ironkeel_codec::decode_yaml(bytes, None)?;
        let text = |key: &str| policy[key].as_str().unwrap_or_default().to_owned();
        if (text("apiVersion").as_str(), text("kind").as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(AuditError::Kind { found: format!("{}, Kind={}", text("apiVersion"), text("kind")) });
        }
        let items = policy.items_at(&["rules"]);
        if items.is_empty() {
            return Err(AuditError::NoRules);
        }
        let mut faults = Vec::new();
        let omitted = stages(&policy, "", &mut faults);
        let omit_managed_fields = policy["omitManagedFields"].as_bool().unwrap_or(false);
        let otherwise = Verdict { level: Level::None, omitted, omit_managed_fields };
        let rules = items.iter().enumerate().map(|(i, r)| rule(r, &format!("rules[{i}]."), otherwise, &mut faults));
        let rules = rules.collect();
        if !faults.is_empty() {
            return Err(AuditError::Invalid(faults));
        }
        Ok(Policy { rules, otherwise })
    }

    /// What is recorded of a request.
    pub fn judge(&self, a: &Attributes<'_>) -> Verdict {
        self.rules.iter().find(|r| r.matches(a)).map_or(self.otherwise, |r| r.verdict)
    }
}

fn rule(r: &Value, at: &str, policy: Verdict, faults: &mut Vec<String>) -> Rule {
    let level = r["level"].as_str().unwrap_or_default();
    let level = Level::parse(level).unwrap_or_else(|| {
        faults.push(if level.is_empty() {
            format!("{at}level: Required value")
        } else {
            format!("{at}level: Unsupported value: {level:?}: supported values: \"Metadata\", \"None\", \"Request\", \"RequestResponse\"")
        });
        Level::None
    });
    let rule = Rule {
        verdict: Verdict {
            level,
            omitted: policy.omitted | stages(r, at, faults),
            omit_managed_fields: r["omitManagedFields"].as_bool().unwrap_or(policy.omit_managed_fields),
        },
        users: strings(r, "users"),
        groups: strings(r, "userGroups"),
        verbs: strings(r, "verbs"),
        resources: r
            .items_at(&["resources"])
            .iter()
            .map(|g| Resources {
                group: g["group"].as_str().unwrap_or_default().to_owned(),
                resources: strings(g, "resources"),
                names: strings(g, "resourceNames"),
            })
            .collect(),
        namespaces: strings(r, "namespaces"),
        paths: strings(r, "nonResourceURLs"),
    };
    let about_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    if about_resources && !rule.paths.is_empty() {
        faults.push(format!(
            "{at}nonResourceURLs: Invalid value: rules cannot apply to both regular resources and non-resource URLs"
        ));
    }
    for (i, path) in rule.paths.iter().enumerate() {
        if path != "*" && (!path.starts_with('/') || path.trim_end_matches('*').contains('*')) {
            faults.push(format!(
                "{at}nonResourceURLs[{i}]: Invalid value: {path:?}: a path begins with '/', and may end with '*'"
            ));
        }
    }
    for (i, group) in rule.resources.iter().enumerate() {
        if group.resources.is_empty() && !group.names.is_empty() {
            faults.push(format!(
                "{at}resources[{i}].resourceNames: Invalid value: using resourceNames requires at least one resource"
            ));
        }
    }
    rule
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|t| t == text)
}

impl Rule {
    fn matches(&self, a: &Attributes<'_>) -> bool {
        (self.users.is_empty() || has(&self.users, a.user))
            && (self.groups.is_empty() || a.groups.iter().any(|g| has(&self.groups, g)))
            && (self.verbs.is_empty() || has(&self.verbs, a.verb))
            && self.is_about(a)
    }

    fn is_about(&self, a: &Attributes<'_>) -> bool {
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return a.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, a.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|g| g.holds(a)));
        }
        if self.paths.is_empty() {
            return true;
        }
        let path_is =
            |p: &String| p == "*" || p == a.path || (p.ends_with('*') && a.path.starts_with(p.trim_end_matches('*')));
        !a.is_resource && self.paths.iter().any(path_is)
    }
}

impl Resources {
    fn holds(&self, a: &Attributes<'_>) -> bool {
        if self.group != a.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.names.is_empty() && !has(&self.names, a.name) {
            return false;
        }
        self.resources.iter().any(|r| match r.split_once('/') {
            _ if r == "*" => true,
            None => r == a.resource && a.subresource.is_empty(),
            Some(("*", sub)) => !a.subresource.is_empty() && sub == a.subresource,
            Some((resource, "*")) => resource == a.resource,
            Some((resource, sub)) => resource == a.resource && sub == a.subresource,
        })
    }
}
