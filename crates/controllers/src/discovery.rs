//! Which resources the API server serves, for controllers that work on all of them.

use std::collections::HashSet;

use futures::StreamExt as _;
use kube::Client;
use kube::core::ApiResource;

use crate::error::is_not_found;

/// So many versions are asked for at once.
const AT_ONCE: usize = 8;

/// A served resource in one of its versions.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    /// Whether it is the version that the server prefers.
    pub(crate) preferred: bool,
    verbs: Vec<String>,
}

impl Served {
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// What is served, as far as the API servers behind it have told.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// Every version of every resource.
    pub(crate) resources: Vec<Served>,
    /// The groups' versions that could not be asked for, and why.
    pub(crate) failures: Vec<Failure>,
}

/// A version of a group that could not be asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) group: String,
    version: String,
    error: kube::Error,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}: {}", self.group, self.version, self.error)
    }
}

/// Every version of every resource. One extension server that does not answer hides its own only.
pub(crate) async fn discover(client: &Client) -> kube::Result<Discovered> {
    let core = client.list_core_api_versions().await?.versions.into_iter().map(|version| (String::new(), version));
    let mut versions: Vec<(String, String)> = core.collect();
    for mut group in client.list_api_groups().await?.groups {
        let preferred = group.preferred_version.take().map(|preferred| preferred.version);
        // The order is the server's but for the first.
        group.versions.sort_by_key(|version| Some(&version.version) != preferred.as_ref());
        versions.extend(group.versions.into_iter().map(|version| (group.name.clone(), version.version)));
    }
    let lists = futures::stream::iter(versions.clone()).map(move |(group, version)| {
        let client = client.clone();
        async move {
            if group.is_empty() {
                client.list_core_api_resources(&version).await
            } else {
                client.list_api_group_resources(&format!("{group}/{version}")).await
            }
        }
    });
    let lists: Vec<_> = lists.buffered(AT_ONCE).collect().await;
    let mut found = Discovered::default();
    let mut seen = HashSet::new();
    for ((group, version), list) in versions.iter().zip(lists) {
        let list = match list {
            Ok(list) => list,
            // It went in between.
            Err(error) if is_not_found(&error) => continue,
            Err(error) => {
                found.failures.push(Failure { group: group.clone(), version: version.clone(), error });
                continue;
            }
        };
        for resource in list.resources.into_iter().filter(|resource| !resource.name.contains('/')) {
            let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
            found.resources.push(Served {
                preferred: seen.insert((group, resource.name.clone())),
                namespaced: resource.namespaced,
                verbs: resource.verbs,
                resource: ApiResource {
                    group: group.clone(),
                    version: version.clone(),
                    api_version,
                    kind: resource.kind,
                    plural: resource.name,
                },
            });
        }
    }
    Ok(found)
}
