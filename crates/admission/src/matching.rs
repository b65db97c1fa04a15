//! Which requests a webhook or a policy is about: rules, selectors, equivalent versions.

use std::sync::Arc;

use ironkeel_object::{LabelSelector, ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Operation, Row};

use crate::Cluster;

/// The kinds that neither webhooks nor policies ever see, so that nobody locks themselves out.
const EXEMPT: &[&str] = &[
    "validatingwebhookconfigurations",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// Whether this is about the configuration of admission itself.
pub(crate) fn exempt(a: &Attributes<'_>) -> bool {
    a.row.group() == "admissionregistration.k8s.io" && EXEMPT.contains(&a.row.plural())
}

#[derive(Debug, Default)]
enum Scope {
    #[default]
    All,
    Cluster,
    Namespaced,
}

/// One rule of a webhook, or one named rule of a policy.
#[derive(Debug)]
pub(crate) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    scope: Scope,
    /// `resourceNames` of policies; empty for all.
    names: Vec<String>,
}

pub(crate) fn texts(value: &Value, key: &str) -> Vec<String> {
    value.items_at(&[key]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(items: &[String], wanted: &str) -> bool {
    items.iter().any(|i| i == "*" || i == wanted)
}

impl Rule {
    pub(crate) fn parse(rule: &Value) -> Self {
        let split = |text: &String| match text.split_once('/') {
            Some((resource, sub)) => (resource.to_owned(), sub.to_owned()),
            None => (text.clone(), String::new()),
        };
        Rule {
            operations: texts(rule, "operations"),
            groups: texts(rule, "apiGroups"),
            versions: texts(rule, "apiVersions"),
            resources: texts(rule, "resources").iter().map(split).collect(),
            scope: match rule.str_at(&["scope"]) {
                Some("Cluster") => Scope::Cluster,
                Some("Namespaced") => Scope::Namespaced,
                _ => Scope::All,
            },
            names: texts(rule, "resourceNames"),
        }
    }

    fn matches(&self, a: &Attributes<'_>, group: &str, version: &str, plural: &str) -> bool {
        let namespaced = a.row.namespaced() && !a.namespace.is_empty();
        let scope = match self.scope {
            Scope::All => true,
            Scope::Namespaced => namespaced,
            Scope::Cluster => !namespaced,
        };
        scope
            && has(&self.operations, a.operation.as_str())
            && has(&self.groups, group)
            && has(&self.versions, version)
            && self.resources.iter().any(|(r, s)| (r == "*" || r == plural) && (s == "*" || s == a.subresource))
            && (self.names.is_empty() || self.names.iter().any(|n| n == a.name))
    }
}

/// All that decides whether a request is meant, CEL conditions apart.
#[derive(Debug)]
pub(crate) struct Match {
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
    rules: Vec<Rule>,
    exclude: Vec<Rule>,
    equivalent: bool,
    /// A binding without rules takes every request.
    open: bool,
}

/// The version in which a webhook or policy wants to see the object.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The row of another version; none where the request's own will do.
    pub(crate) row: Option<Arc<Row>>,
}

impl View {
    pub(crate) fn row<'a>(&'a self, a: &'a Attributes<'_>) -> &'a Row {
        self.row.as_deref().unwrap_or(a.row)
    }
}

fn selector(value: &Value, key: &str) -> Result<LabelSelector, String> {
    match value.get(key).filter(|v| !v.is_null()) {
        Some(selector) => LabelSelector::from_value(selector).map_err(|e| e.to_string()),
        None => Ok(LabelSelector::default()),
    }
}

impl Match {
    /// Of a webhook.
    pub(crate) fn of_webhook(hook: &Value) -> Self {
        Match {
            namespaces: selector(hook, "namespaceSelector"),
            objects: selector(hook, "objectSelector"),
            rules: hook.items_at(&["rules"]).iter().map(Rule::parse).collect(),
            exclude: Vec::new(),
            equivalent: hook.str_at(&["matchPolicy"]) != Some("Exact"),
            open: false,
        }
    }

    /// Of `matchConstraints` or of a binding's `matchResources`.
    pub(crate) fn of_policy(m: &Value, binding: bool) -> Self {
        let rules: Vec<Rule> = m.items_at(&["resourceRules"]).iter().map(Rule::parse).collect();
        Match {
            namespaces: selector(m, "namespaceSelector"),
            objects: selector(m, "objectSelector"),
            open: binding && rules.is_empty(),
            rules,
            exclude: m.items_at(&["excludeResourceRules"]).iter().map(Rule::parse).collect(),
            equivalent: m.str_at(&["matchPolicy"]) != Some("Exact"),
        }
    }

    /// Whether the request is meant, and in which version it is to be shown.
    pub(crate) fn matches(
        &self,
        c: &Cluster,
        a: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Option<View>, ApiError> {
        let own = |rules: &[Rule]| {
            rules.iter().any(|r| r.matches(a, a.row.group(), a.row.kind.resource.version, a.row.plural()))
        };
        if own(&self.exclude)
            || (self.equivalent && !self.exclude.is_empty() && self.other(c, a, &self.exclude).is_some())
        {
            return Ok(None);
        }
        let view = if self.open || own(&self.rules) {
            View { row: None }
        } else if self.equivalent
            && let Some(row) = self.other(c, a, &self.rules)
        {
            View { row: Some(row) }
        } else {
            return Ok(None);
        };
        // Selectors come first upstream, but their errors count only for requests that the rules mean.
        let labelled = |o: Option<&Value>, s: &LabelSelector| {
            o.is_some_and(|o| o.get("metadata").is_some() && s.matches_object(o))
        };
        match &self.objects {
            Ok(s) if s.is_everything() || labelled(object, s) || labelled(old, s) => {}
            Ok(_) => return Ok(None),
            Err(why) => return Err(ApiError::internal(why)),
        }
        Ok(self.namespace_matches(c, a, object)?.then_some(view))
    }

    fn namespace_matches(&self, c: &Cluster, a: &Attributes<'_>, object: Option<&Value>) -> Result<bool, ApiError> {
        let selector = self.namespaces.as_ref().map_err(ApiError::internal)?;
        let is_namespace = a.row.plural() == "namespaces" && a.row.group().is_empty();
        if selector.is_everything() || (!is_namespace && (!a.row.namespaced() || a.namespace.is_empty())) {
            return Ok(true);
        }
        if is_namespace && a.subresource.is_empty() && matches!(a.operation, Operation::Create | Operation::Update) {
            return Ok(object.is_some_and(|o| selector.matches_object(o)));
        }
        let name = if is_namespace { a.name } else { a.namespace };
        match c.get("", "namespaces", "", name) {
            Some(namespace) => Ok(selector.matches_object(&namespace)),
            None => Err(ApiError::not_found("", "namespaces", name)),
        }
    }

    /// Another version of the resource that a rule names; earlier rules first.
    fn other(&self, c: &Cluster, a: &Attributes<'_>, rules: &[Rule]) -> Option<Arc<Row>> {
        let registry = c.registry.as_ref()?;
        let home = a.row.stored.as_ref()?;
        let rows = registry.rows();
        let same: Vec<&Arc<Row>> = rows
            .iter()
            .filter(|r| r.api_version != a.row.api_version && r.stored.as_ref().is_some_and(|s| Arc::ptr_eq(s, home)))
            .collect();
        rules.iter().find_map(|rule| {
            let found = same.iter().find(|r| rule.matches(a, r.group(), r.kind.resource.version, r.plural()));
            found.map(|r| Arc::clone(r))
        })
    }
}

/// The namespace of a request as upstream's attributes name it: a Namespace is in itself when it is
/// created.
pub(crate) fn namespace_of<'a>(a: &Attributes<'a>) -> &'a str {
    if a.operation == Operation::Create && a.is("", "namespaces") { a.name } else { a.namespace }
}

/// An object in the version of a view; Scales and the like stay as they are.
pub(crate) async fn shown(
    c: &Cluster,
    a: &Attributes<'_>,
    view: &View,
    object: Option<&Value>,
) -> Result<Option<Value>, ApiError> {
    let Some(object) = object else { return Ok(None) };
    if a.subresource == "scale" && object.get("kind").and_then(Value::as_str) != Some("Scale") {
        return ironkeel_registry::scale_of(a.row, object).map(Some);
    }
    let convertible = object.gvk().kind == a.row.kind_name();
    match (&view.row, &c.registry) {
        (Some(row), Some(registry)) if convertible => registry.convert(a.row, row, object.clone()).await.map(Some),
        _ => Ok(Some(object.clone())),
    }
}

/// Writes a changed view back into the object.
pub(crate) async fn taken_back(
    c: &Cluster,
    a: &Attributes<'_>,
    view: &View,
    changed: Value,
    object: &mut Value,
) -> Result<(), ApiError> {
    if a.subresource == "scale" && changed.get("kind").and_then(Value::as_str) == Some("Scale") {
        let replicas = changed.i64_at(&["spec", "replicas"]).unwrap_or(0);
        a.row.kind.hooks.set_replicas(object, replicas);
        return Ok(());
    }
    *object = match (&view.row, &c.registry) {
        (Some(row), Some(registry)) if changed.gvk().kind == row.kind_name() => {
            registry.convert(row, a.row, changed).await?
        }
        _ => changed,
    };
    Ok(())
}

/// Decodes what a patch made: wrong types are errors, unknown fields go, defaults come in.
pub(crate) fn settle(row: &Row, object: &mut Value) -> Result<(), ApiError> {
    if object.gvk().kind != row.kind_name() || object.gvk().api_version() != row.api_version {
        return Ok(());
    }
    match &row.kind.custom {
        Some(version) => _ = version.shape(object),
        None => {
            let mut unknown = Vec::new();
            ironkeel_codec::conform(object, row.kind.resource.type_id, &mut unknown).map_err(ApiError::internal)?;
        }
    }
    row.kind.hooks.default(object);
    Ok(())
}
