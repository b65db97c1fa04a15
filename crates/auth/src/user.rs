//! The identity of a caller, as `authentication.k8s.io/v1.UserInfo` has it.

use std::collections::BTreeMap;

use crate::configuration::is_subdomain;

/// Longest namespace name.
const LABEL_BYTES: usize = 63;

/// Who a request comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// Name, for example `system:serviceaccount:default:web`.
    pub name: String,
    /// Unique id; empty where the method of authentication has none.
    pub uid: String,
    /// Groups; an authenticated user is always in `system:authenticated`.
    pub groups: Vec<String>,
    /// Whatever else the method of authentication said.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// Every authenticated user's group.
    pub const AUTHENTICATED: &'static str = "system:authenticated";
    /// The anonymous user's group.
    pub const UNAUTHENTICATED: &'static str = "system:unauthenticated";
    /// The anonymous user.
    pub const ANONYMOUS: &'static str = "system:anonymous";
    /// Members may do everything; no rule is asked.
    pub const MASTERS: &'static str = "system:masters";

    /// An authenticated user in `groups` and `system:authenticated`.
    pub fn new<G: Into<String>>(name: impl Into<String>, groups: impl IntoIterator<Item = G>) -> Self {
        let mut user =
            UserInfo { name: name.into(), groups: groups.into_iter().map(Into::into).collect(), ..UserInfo::default() };
        user.mark_authenticated();
        user
    }

    /// A ServiceAccount's user without a token; for the in-process transport, which stamps the
    /// identity of a controller (`kube-system`, `deployment-controller`).
    pub fn for_service_account(namespace: &str, name: &str) -> Self {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        Self::new(format!("system:serviceaccount:{namespace}:{name}"), groups)
    }

    /// The user of requests without credentials.
    pub fn anonymous() -> Self {
        UserInfo {
            name: Self::ANONYMOUS.to_owned(),
            groups: vec![Self::UNAUTHENTICATED.to_owned()],
            ..UserInfo::default()
        }
    }

    /// Whether the user is in `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Namespace and name, where this is a ServiceAccount. A name that no ServiceAccount can have is none.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        let label = namespace.len() <= LABEL_BYTES && !namespace.contains('.') && is_subdomain(namespace);
        (label && is_subdomain(name)).then_some((namespace, name))
    }

    /// Node name, where this is a kubelet (`system:node:<name>` in `system:nodes`).
    pub fn node(&self) -> Option<&str> {
        let node = self.name.strip_prefix("system:node:")?;
        (!node.is_empty() && self.in_group("system:nodes")).then_some(node)
    }

    pub(crate) fn mark_authenticated(&mut self) {
        let stranger = self.name == Self::ANONYMOUS || self.in_group(Self::UNAUTHENTICATED);
        if !stranger && !self.in_group(Self::AUTHENTICATED) {
            self.groups.push(Self::AUTHENTICATED.to_owned());
        }
    }
}
