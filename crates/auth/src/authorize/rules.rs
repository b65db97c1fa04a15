//! One RBAC rule: reading it, matching it, and whether rules cover others.

use ironkeel_object::{Map, Value};

use super::Attributes;

/// `rbac.authorization.k8s.io/v1.PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRule {
    /// API groups; `*` is all.
    pub api_groups: Vec<String>,
    /// Resources: `pods`, `pods/log`, `*/scale`, `*`.
    pub resources: Vec<String>,
    /// Names of objects; none means all.
    pub resource_names: Vec<String>,
    /// Verbs; `*` is all.
    pub verbs: Vec<String>,
    /// Paths; a trailing `*` stands for any rest.
    pub non_resource_urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|s| s == "*" || s == wanted)
}

fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// Whether the entry of a rule stands for `resource` or `resource/subresource`.
fn resource_matches(entry: &str, resource: &str, subresource: &str) -> bool {
    if entry == "*" {
        return true;
    }
    match entry.split_once('/') {
        None => subresource.is_empty() && entry == resource,
        Some((main, sub)) => !subresource.is_empty() && sub == subresource && (main == "*" || main == resource),
    }
}

impl PolicyRule {
    /// Reads a rule; what is not there is empty.
    pub fn from_value(value: &Value) -> PolicyRule {
        let strings = |key| value.items_at(&[key]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        PolicyRule {
            api_groups: strings("apiGroups"),
            resources: strings("resources"),
            resource_names: strings("resourceNames"),
            verbs: strings("verbs"),
            non_resource_urls: strings("nonResourceURLs"),
        }
    }

    /// Reads the `rules` of a Role or ClusterRole.
    pub fn of_role(role: &Value) -> Vec<PolicyRule> {
        role.items_at(&["rules"]).iter().map(PolicyRule::from_value).collect()
    }

    /// The rule as the API has it; empty lists are left out, `verbs` excepted.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        let lists = [
            ("apiGroups", &self.api_groups),
            ("nonResourceURLs", &self.non_resource_urls),
            ("resourceNames", &self.resource_names),
            ("resources", &self.resources),
        ];
        for (key, list) in lists {
            if !list.is_empty() {
                out.insert(key, list.clone());
            }
        }
        out.insert("verbs", self.verbs.clone());
        Value::Object(out)
    }

    /// What `system:masters` may.
    pub(crate) fn everything() -> Vec<PolicyRule> {
        let all = || vec!["*".to_owned()];
        vec![
            PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
            PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
        ]
    }

    /// Whether the rule allows it. The binding's namespace is not looked at.
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !has(&self.verbs, a.verb) {
            return false;
        }
        if !a.resource_request {
            return self.non_resource_urls.iter().any(|p| path_matches(p, a.path));
        }
        has(&self.api_groups, a.group)
            && self.resources.iter().any(|r| resource_matches(r, a.resource, a.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == a.name))
    }

    /// Whether this rule alone allows all that a rule with one verb and one group and resource (or
    /// path) allows.
    fn covers_atom(&self, atom: &PolicyRule) -> bool {
        if !atom.verbs.iter().all(|v| has(&self.verbs, v)) {
            return false;
        }
        if !atom.non_resource_urls.is_empty() {
            return atom.non_resource_urls.iter().all(|wanted| {
                self.non_resource_urls.iter().any(|own| match own.strip_suffix('*') {
                    Some(prefix) => wanted.starts_with(prefix),
                    None => own == wanted,
                })
            });
        }
        let names = if atom.resource_names.is_empty() {
            self.resource_names.is_empty()
        } else {
            self.resource_names.is_empty() || atom.resource_names.iter().all(|n| self.resource_names.contains(n))
        };
        names
            && atom.api_groups.iter().all(|g| has(&self.api_groups, g))
            && atom.resources.iter().all(|wanted| {
                let (main, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
                self.resources.iter().any(|own| own == wanted || resource_matches(own, main, sub))
            })
    }

    /// Splits into rules with one verb, one group, one resource, one name (or one path) each.
    fn atoms(&self) -> Vec<PolicyRule> {
        let mut atoms = Vec::new();
        let one = |s: &String| vec![s.clone()];
        let names: Vec<Vec<String>> = if self.resource_names.is_empty() {
            vec![Vec::new()]
        } else {
            self.resource_names.iter().map(one).collect()
        };
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    atoms.extend(names.iter().map(|name| PolicyRule {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        resource_names: name.clone(),
                        ..PolicyRule::default()
                    }));
                }
            }
            atoms.extend(self.non_resource_urls.iter().map(|url| PolicyRule {
                verbs: one(verb),
                non_resource_urls: one(url),
                ..PolicyRule::default()
            }));
        }
        atoms
    }

    /// The rule as upstream's messages write it.
    pub(crate) fn compact(&self) -> String {
        let lists = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let told = lists.into_iter().filter(|(_, l)| !l.is_empty());
        let parts: Vec<String> = told.map(|(name, list)| format!("{name}:{}", quoted(list))).collect();
        format!("{{{}}}", parts.join(", "))
    }

    /// The rule as reviews show it: what it says of resources, and of paths.
    pub fn to_review(&self) -> (Option<Value>, Option<Value>) {
        let of = |lists: [(&'static str, &Vec<String>); 3]| {
            let mut out = Map::new();
            out.insert("verbs", self.verbs.clone());
            for (key, list) in lists.into_iter().filter(|(_, l)| !l.is_empty()) {
                out.insert(key, list.clone());
            }
            Value::Object(out)
        };
        let none = Vec::new();
        let resources = (!self.resources.is_empty()).then(|| {
            let names = ("resourceNames", &self.resource_names);
            of([("apiGroups", &self.api_groups), ("resources", &self.resources), names])
        });
        let paths = (!self.non_resource_urls.is_empty())
            .then(|| of([("nonResourceURLs", &self.non_resource_urls), ("", &none), ("", &none)]));
        (resources, paths)
    }
}

/// `["a" "b"]`.
pub(crate) fn quoted(list: &[String]) -> String {
    let texts: Vec<String> = list.iter().map(|t| format!("{t:?}")).collect();
    format!("[{}]", texts.join(" "))
}

/// Rules as upstream's messages list them: verbs of one resource together, sorted, none twice.
pub(crate) fn described(rules: &[PolicyRule]) -> String {
    let mut compacted: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let same = |r: &&mut PolicyRule| {
            rule.non_resource_urls.is_empty()
                && (&r.api_groups, &r.resources, &r.resource_names)
                    == (&rule.api_groups, &rule.resources, &rule.resource_names)
                && r.non_resource_urls.is_empty()
        };
        match compacted.iter_mut().find(same) {
            Some(known) => known.verbs.extend_from_slice(&rule.verbs),
            None => compacted.push(rule.clone()),
        }
    }
    let lines: std::collections::BTreeSet<String> = compacted.iter().map(PolicyRule::compact).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// What of `wanted` the rules of `owner` do not cover, in atoms; empty when all is covered.
pub fn covers(owner: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(|rule| {
            // A rule that is covered whole needs no splitting.
            if owner.iter().any(|own| own.covers_whole(rule)) { Vec::new() } else { rule.atoms() }
        })
        .filter(|atom| !owner.iter().any(|own| own.covers_atom(atom)))
        .collect()
}

impl PolicyRule {
    fn covers_whole(&self, rule: &PolicyRule) -> bool {
        (rule.resources.is_empty() || rule.non_resource_urls.is_empty())
            && !rule.verbs.is_empty()
            && (!rule.resources.is_empty() || !rule.non_resource_urls.is_empty())
            && self.covers_atom(rule)
    }
}
