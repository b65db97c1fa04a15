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

/// What a binding gives to one of its subjects.
struct Grant {
    /// Which binding, counted through.
    binding: usize,
    role: Role,
    reason: Arc<str>,
}

#[derive(Clone)]
enum Role {
    Rules(Arc<[PolicyRule]>),
    /// The kind (in lower case) and name of a role that is not there.
    Missing(Arc<str>, Arc<str>),
}

impl Grant {
    fn rules(&self) -> &[PolicyRule] {
        match &self.role {
            Role::Rules(rules) => rules,
            Role::Missing(..) => &[],
        }
    }
}

/// What a user may, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// The rules.
    pub(super) rules: Vec<PolicyRule>,
    /// Roles that bindings name and that are not there, each kind with its name.
    pub(super) missing: Vec<(Arc<str>, Arc<str>)>,
}

/// Several errors as upstream's aggregates write them, none twice.
pub fn aggregate(errors: impl IntoIterator<Item = String>) -> String {
    let mut all: Vec<String> = Vec::new();
    for error in errors {
        if !all.contains(&error) {
            all.push(error);
        }
    }
    if all.len() == 1 { all.remove(0) } else { format!("[{}]", all.join(", ")) }
}

/// A role that is not there, as a `resource` of which is spoken.
pub(super) fn not_found(resource: &str, name: &str) -> String {
    format!("{resource}.{GROUP} {name:?} not found")
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
        let mut known: HashMap<(String, String), Role> = HashMap::new();
        let mut role = |namespace: &str, reference: &Value| {
            let (row, kind, namespace) = match reference.str_at(&["kind"]) {
                Some("ClusterRole") => (cluster_roles, "clusterrole", ""),
                Some("Role") if !namespace.is_empty() => (roles, "role", namespace),
                _ => return None,
            };
            let name = reference.str_at(&["name"])?;
            let entry = known.entry((namespace.to_owned(), name.to_owned())).or_insert_with(|| {
                let found = self.source.get(row, namespace, name);
                let missing = || Role::Missing(kind.into(), name.into());
                found.map_or_else(missing, |role| Role::Rules(PolicyRule::of_role(&role).into()))
            });
            Some(entry.clone())
        };
        let mut count = 0;
        for binding in self.source.list(cluster_bindings, "") {
            if let Some(role) = role("", &binding["roleRef"]) {
                add(&mut index.cluster, count, &binding, &role);
                count += 1;
            }
        }
        for binding in self.source.list(bindings, "") {
            let namespace = binding.namespace();
            if let Some(role) = role(namespace, &binding["roleRef"]) {
                add(index.namespaces.entry(namespace.to_owned()).or_default(), count, &binding, &role);
                count += 1;
            }
        }
        index
    }

    /// The reason of the first rule that allows it; else what was wrong with roles, or nothing.
    pub(super) fn authorize(&self, a: &Attributes<'_>) -> Result<Arc<str>, Option<String>> {
        let index = self.index();
        let namespaced = index.namespaces.get(a.namespace).filter(|_| a.resource_request && !a.namespace.is_empty());
        let mut missing = Vec::new();
        for grant in index.cluster.grants(a.user).chain(namespaced.into_iter().flat_map(|s| s.grants(a.user))) {
            match &grant.role {
                Role::Rules(rules) if rules.iter().any(|rule| rule.allows(a)) => return Ok(grant.reason.clone()),
                Role::Rules(_) => {}
                Role::Missing(kind, name) => missing.push(not_found(kind, name)),
            }
        }
        Err((!missing.is_empty()).then(|| format!("RBAC: {}", aggregate(missing))))
    }

    /// All rules of a user; cluster-wide ones only where `namespace` is empty.
    pub(super) fn held(&self, user: &UserInfo, namespace: &str) -> Held {
        let index = self.index();
        let namespaced = index.namespaces.get(namespace).filter(|_| !namespace.is_empty());
        let grants = index.cluster.grants(user).chain(namespaced.into_iter().flat_map(|s| s.grants(user)));
        // Whoever is a subject of one binding twice has its rules once.
        let once: std::collections::BTreeMap<usize, &Grant> = grants.map(|g| (g.binding, g)).collect();
        let mut held = Held::default();
        for grant in once.values() {
            held.rules.extend_from_slice(grant.rules());
            if let Role::Missing(kind, name) = &grant.role {
                held.missing.push((kind.clone(), name.clone()));
            }
        }
        held
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

fn add(subjects: &mut Subjects, count: usize, binding: &Value, role: &Role) {
    let kind = if binding.namespace().is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    let bound = match binding.namespace() {
        "" => format!("{:?}", binding.name()),
        namespace => format!("\"{}/{namespace}\"", binding.name()),
    };
    let role_kind = binding.str_at(&["roleRef", "kind"]).unwrap_or_default();
    let role_name = binding.str_at(&["roleRef", "name"]).unwrap_or_default();
    for subject in binding.items_at(&["subjects"]) {
        let name = subject.str_at(&["name"]).unwrap_or_default();
        let subject_kind = subject.str_at(&["kind"]).unwrap_or_default();
        let namespace = subject.str_at(&["namespace"]).filter(|n| !n.is_empty()).unwrap_or(binding.namespace());
        let shown = match subject_kind {
            "ServiceAccount" => format!("\"{name}/{namespace}\""),
            _ => format!("{name:?}"),
        };
        let reason = format!("RBAC: allowed by {kind} {bound} of {role_kind} {role_name:?} to {subject_kind} {shown}");
        let grant = Grant { binding: count, role: role.clone(), reason: reason.into() };
        match subject_kind {
            "User" => subjects.users.entry(name.to_owned()).or_default().push(grant),
            "Group" => subjects.groups.entry(name.to_owned()).or_default().push(grant),
            "ServiceAccount" if !namespace.is_empty() => {
                let user = format!("system:serviceaccount:{namespace}:{name}");
                subjects.users.entry(user).or_default().push(grant);
            }
            _ => {}
        }
    }
}
