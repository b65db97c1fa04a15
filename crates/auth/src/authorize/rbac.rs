//! RBAC over the stored roles and bindings: an index from subject to rules, rebuilt when a role or
//! binding changes, and read without a lock.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ironkeel_object::{ObjectMeta, ObjectSource, Value};
use ironkeel_schema::{Resource, resource};
use parking_lot::Mutex;

use super::{Attributes, PolicyRule};
use crate::UserInfo;

const GROUP: &str = "rbac.authorization.k8s.io";

struct Grant {
    rules: Arc<[PolicyRule]>,
    reason: Arc<str>,
}

/// Grants of one scope, by subject. A ServiceAccount is a user by its full name.
#[derive(Default)]
struct Subjects {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

impl Subjects {
    fn grants<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Grant> {
        let of_groups = user.groups.iter().filter_map(|g| self.groups.get(g)).flatten();
        self.users.get(&user.name).into_iter().flatten().chain(of_groups)
    }
}

#[derive(Default)]
struct Index {
    versions: Option<[u64; 4]>,
    cluster: Subjects,
    namespaces: HashMap<String, Subjects>,
}

pub(super) struct Rbac {
    source: Arc<dyn ObjectSource>,
    resources: [&'static Resource; 4],
    index: ArcSwap<Index>,
    rebuilding: Mutex<()>,
}

impl Rbac {
    pub(super) fn new(source: Arc<dyn ObjectSource>) -> Self {
        let row = |plural| resource(GROUP, "v1", plural).expect("the table has the RBAC resources");
        let resources = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"].map(row);
        Rbac { source, resources, index: ArcSwap::default(), rebuilding: Mutex::new(()) }
    }

    fn index(&self) -> arc_swap::Guard<Arc<Index>> {
        let index = self.index.load();
        if index.versions == Some(self.versions()) {
            return index;
        }
        drop(index);
        let _one = self.rebuilding.lock();
        let versions = self.versions();
        if self.index.load().versions != Some(versions) {
            self.index.store(Arc::new(self.build(versions)));
        }
        self.index.load()
    }

    fn versions(&self) -> [u64; 4] {
        self.resources.map(|r| self.source.version(r))
    }

    fn build(&self, versions: [u64; 4]) -> Index {
        let [cluster_roles, cluster_bindings, roles, bindings] = self.resources;
        let mut index = Index { versions: Some(versions), ..Index::default() };
        let mut known: HashMap<(String, String), Option<Arc<[PolicyRule]>>> = HashMap::new();
        let mut rules = |namespace: &str, role: &Value| {
            let (row, namespace) = match role.str_at(&["kind"]) {
                Some("ClusterRole") => (cluster_roles, ""),
                Some("Role") if !namespace.is_empty() => (roles, namespace),
                _ => return None,
            };
            let name = role.str_at(&["name"])?;
            let entry = known
                .entry((namespace.to_owned(), name.to_owned()))
                .or_insert_with(|| self.source.get(row, namespace, name).map(|role| PolicyRule::of_role(&role).into()));
            entry.clone()
        };
        for binding in self.source.list(cluster_bindings, "") {
            if let Some(rules) = rules("", &binding["roleRef"]) {
                add(&mut index.cluster, &binding, &rules);
            }
        }
        for binding in self.source.list(bindings, "") {
            let namespace = binding.namespace();
            if let Some(rules) = rules(namespace, &binding["roleRef"]) {
                add(index.namespaces.entry(namespace.to_owned()).or_default(), &binding, &rules);
            }
        }
        index
    }

    /// The reason of the first rule that allows it.
    pub(super) fn authorize(&self, a: &Attributes<'_>) -> Option<Arc<str>> {
        let index = self.index();
        let namespaced = index.namespaces.get(a.namespace).filter(|_| a.resource_request && !a.namespace.is_empty());
        let mut grants = index.cluster.grants(a.user).chain(namespaced.into_iter().flat_map(|s| s.grants(a.user)));
        grants.find(|g| g.rules.iter().any(|rule| rule.allows(a))).map(|g| g.reason.clone())
    }

    /// All rules of a user; cluster-wide ones only where `namespace` is empty.
    pub(super) fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        let index = self.index();
        let namespaced = index.namespaces.get(namespace).filter(|_| !namespace.is_empty());
        let grants = index.cluster.grants(user).chain(namespaced.into_iter().flat_map(|s| s.grants(user)));
        grants.flat_map(|g| g.rules.iter().cloned()).collect()
    }

    /// The rules of the role that a binding names; `None` where it is not there.
    pub(super) fn referenced_rules(&self, namespace: &str, role_ref: &Value) -> Option<Vec<PolicyRule>> {
        let [cluster_roles, _, roles, _] = self.resources;
        let (row, namespace) = match role_ref.str_at(&["kind"])? {
            "ClusterRole" => (cluster_roles, ""),
            "Role" => (roles, namespace),
            _ => return None,
        };
        self.source.get(row, namespace, role_ref.str_at(&["name"])?).map(|role| PolicyRule::of_role(&role))
    }
}

fn add(subjects: &mut Subjects, binding: &Value, rules: &Arc<[PolicyRule]>) {
    let kind = if binding.namespace().is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    let bound = match binding.namespace() {
        "" => format!("{:?}", binding.name()),
        namespace => format!("\"{}/{namespace}\"", binding.name()),
    };
    let role_kind = binding.str_at(&["roleRef", "kind"]).unwrap_or_default();
    let role = binding.str_at(&["roleRef", "name"]).unwrap_or_default();
    for subject in binding.items_at(&["subjects"]) {
        let name = subject.str_at(&["name"]).unwrap_or_default();
        let subject_kind = subject.str_at(&["kind"]).unwrap_or_default();
        let namespace = subject.str_at(&["namespace"]).filter(|n| !n.is_empty()).unwrap_or(binding.namespace());
        let shown = match subject_kind {
            "ServiceAccount" => format!("\"{name}/{namespace}\""),
            _ => format!("{name:?}"),
        };
        let reason = format!("RBAC: allowed by {kind} {bound} of {role_kind} {role:?} to {subject_kind} {shown}");
        let grant = Grant { rules: rules.clone(), reason: reason.into() };
        match subject_kind {
            "User" => subjects.users.entry(name.to_owned()).or_default().push(grant),
            "Group" => subjects.groups.entry(name.to_owned()).or_default().push(grant),
            "ServiceAccount" => {
                let user = format!("system:serviceaccount:{namespace}:{name}");
                subjects.users.entry(user).or_default().push(grant);
            }
            _ => {}
        }
    }
}
