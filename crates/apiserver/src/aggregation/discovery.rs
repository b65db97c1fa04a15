//! Remote groups in the documents about what is served: `/apis`, the aggregated form, OpenAPI. The
//! documents come finished for the local groups; what remote servers said is added here.

use ironkeel_openapi::content_hash;
use serde_json::{Map, Value, json};

use super::availability::Found;
use super::{Aggregator, Listed};

/// The order of discovery: groups by the highest priority among their versions, then by name;
/// versions by priority, then as Kubernetes orders versions.
pub(super) fn sort(listed: &mut [Listed]) {
    let highest: std::collections::HashMap<String, i64> = listed.iter().fold(Default::default(), |mut all, l| {
        let known: &mut i64 = std::collections::HashMap::entry(&mut all, l.group.clone()).or_insert(i64::MIN);
        *known = l.group_priority.max(*known);
        all
    });
    listed.sort_by(|a, b| {
        highest[&b.group]
            .cmp(&highest[&a.group])
            .then_with(|| a.group.cmp(&b.group))
            .then_with(|| b.version_priority.cmp(&a.version_priority))
            .then_with(|| stability(&b.version).cmp(&stability(&a.version)))
            .then_with(|| a.version.cmp(&b.version))
    });
}

/// `v2` over `v1` over `v2beta1` over `v1alpha3` over anything else.
fn stability(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let Ok(major) = rest[..digits].parse() else { return (0, 0, 0) };
    let (rank, minor) = match &rest[digits..] {
        "" => return (3, major, 0),
        beta if beta.starts_with("beta") => (2, &beta[4..]),
        alpha if alpha.starts_with("alpha") => (1, &alpha[5..]),
        _ => return (0, 0, 0),
    };
    minor.parse().map_or((0, 0, 0), |minor| (rank, major, minor))
}

fn named<'a>(items: &'a [Value], path: &str, name: &str) -> Option<&'a Value> {
    items.iter().find(|i| i.pointer(path).and_then(Value::as_str) == Some(name))
}

impl Aggregator {
    /// The versions of a group as APIServices order them; empty where none of them is remote.
    fn mixed(&self, group: &str) -> Vec<Listed> {
        let table = self.table.load();
        if !table.remotes.contains_key(group) {
            return Vec::new();
        }
        table.listed.iter().filter(|l| l.group == group).cloned().collect()
    }

    fn found_of(&self, group: &str, version: &str) -> Option<std::sync::Arc<Found>> {
        let remote = self.remote(group, version)?;
        let found = self.found.lock().get(&remote.name).cloned();
        found.filter(|_| remote.available)
    }

    /// The order of groups; those without an APIService come last, as they came.
    fn order(&self, items: &mut [Value], name_at: &str) {
        let table = self.table.load();
        let place = |item: &Value| {
            let name = item.pointer(name_at).and_then(Value::as_str).unwrap_or_default();
            // The group of APIServices themselves goes before all that they order.
            if name == "apiregistration.k8s.io" {
                return 0;
            }
            table.listed.iter().position(|l| l.group == name).map_or(usize::MAX, |at| at + 1)
        };
        items.sort_by_key(place);
    }

    fn remote_groups(&self) -> Vec<String> {
        self.table.load().remotes.keys().filter(|g| !g.is_empty()).cloned().collect()
    }

    /// Adds remote groups to an APIGroupList.
    pub(crate) fn merge_groups(&self, list: &mut Value) {
        let groups = self.remote_groups();
        let Some(items) = list["groups"].as_array_mut() else { return };
        for group in groups {
            let local = items.iter().position(|i| i["name"] == group.as_str()).map(|i| items.remove(i));
            items.extend(self.group(&group, local));
        }
        self.order(items, "/name");
    }

    /// One APIGroup with its remote versions; `local` is what this server serves of it.
    pub(crate) fn group(&self, group: &str, local: Option<Value>) -> Option<Value> {
        let listed = self.mixed(group);
        if listed.is_empty() {
            return local;
        }
        let mut body = local.unwrap_or_else(|| json!({ "name": group }));
        let versions: Vec<Value> = listed
            .iter()
            .map(|l| json!({ "groupVersion": format!("{group}/{}", l.version), "version": l.version }))
            .collect();
        body["preferredVersion"] = versions.first().cloned().unwrap_or_default();
        body["versions"] = versions.into();
        Some(body)
    }

    /// Adds remote groups to an APIGroupDiscoveryList.
    pub(crate) fn merge_aggregated(&self, document: &mut Value) {
        let groups = self.remote_groups();
        let Some(items) = document["items"].as_array_mut() else { return };
        for group in groups {
            let at = items.iter().position(|i| i.pointer("/metadata/name").and_then(Value::as_str) == Some(&group));
            let local = at.map(|i| items.remove(i));
            let known = local.as_ref().and_then(|l| l["versions"].as_array()).cloned().unwrap_or_default();
            let versions: Vec<Value> = self
                .mixed(&group)
                .iter()
                .filter_map(|l| match l.remote {
                    false => named(&known, "/version", &l.version).cloned(),
                    true => Some(match self.found_of(&group, &l.version) {
                        Some(found) => json!({
                            "version": l.version,
                            "resources": resources(&group, &l.version, &found.resources),
                            "freshness": "Current",
                        }),
                        None => json!({ "version": l.version, "freshness": "Stale" }),
                    }),
                })
                .collect();
            let mut body = local.unwrap_or_else(|| json!({ "metadata": { "name": group } }));
            body["versions"] = versions.into();
            items.push(body);
        }
        self.order(items, "/metadata/name");
    }

    fn all_found(&self) -> Vec<(String, std::sync::Arc<Found>)> {
        let mut all: Vec<_> = self
            .remotes()
            .into_iter()
            .filter_map(|r| Some((r.path().trim_start_matches('/').to_owned(), self.found_of(&r.group, &r.version)?)))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Adds the documents of remote groups to the index of OpenAPI v3.
    pub(crate) fn merge_openapi_v3_index(&self, index: &mut Value) {
        for (path, found) in self.all_found() {
            let Some(url) = &found.openapi_v3 else { continue };
            let hash = url.split_once("hash=").map_or_else(|| content_hash(url.as_bytes()), |(_, h)| h.to_owned());
            index["paths"][&path] = json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") });
        }
    }

    /// Adds the paths and definitions of remote groups to OpenAPI v2.
    pub(crate) fn merge_openapi_v2(&self, document: &mut Value) {
        for (path, found) in self.all_found() {
            let Some((_, theirs)) = &found.openapi_v2 else { continue };
            let prefix = format!("/{path}");
            let own = |p: &str| p == prefix || p.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('/'));
            copy(&theirs["paths"], &mut document["paths"], own);
            copy(&theirs["definitions"], &mut document["definitions"], |_| true);
        }
    }
}

/// Copies members that are not there yet.
fn copy(from: &Value, to: &mut Value, wanted: impl Fn(&str) -> bool) {
    let Some(from) = from.as_object() else { return };
    if !to.is_object() {
        *to = Value::Object(Map::new());
    }
    let Some(to) = to.as_object_mut() else { return };
    for (key, value) in from {
        if wanted(key) && !to.contains_key(key) {
            to.insert(key.clone(), value.clone());
        }
    }
}

/// An APIResourceList as the aggregated form has it.
fn resources(group: &str, version: &str, list: &Value) -> Vec<Value> {
    let all = list["resources"].as_array().cloned().unwrap_or_default();
    let kind_of = |r: &Value| {
        let text = |key: &str, default: &str| r[key].as_str().filter(|t| !t.is_empty()).unwrap_or(default).to_owned();
        json!({ "group": text("group", group), "version": text("version", version), "kind": r["kind"] })
    };
    let mut out = Vec::new();
    for resource in all.iter().filter(|r| r["name"].as_str().is_some_and(|n| !n.contains('/'))) {
        let name = resource["name"].as_str().unwrap_or_default();
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut one = json!({
            "resource": name,
            "responseKind": kind_of(resource),
            "scope": scope,
            "singularResource": resource["singularName"],
            "verbs": resource["verbs"],
        });
        for key in ["shortNames", "categories"] {
            if resource[key].is_array() {
                one[key] = resource[key].clone();
            }
        }
        let subresources: Vec<Value> = all
            .iter()
            .filter_map(|r| {
                let sub = r["name"].as_str()?.strip_prefix(name)?.strip_prefix('/')?;
                Some(json!({ "subresource": sub, "responseKind": kind_of(r), "verbs": r["verbs"] }))
            })
            .collect();
        if !subresources.is_empty() {
            one["subresources"] = subresources.into();
        }
        out.push(one);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_versions_stand_in_the_order_of_their_priorities() {
        let of = |group: &str, version: &str, group_priority, version_priority| Listed {
            group: group.to_owned(),
            version: version.to_owned(),
            group_priority,
            version_priority,
            remote: false,
        };
        let mut listed = vec![
            of("z.io", "v1alpha1", 1000, 100),
            of("z.io", "v1", 1000, 100),
            of("z.io", "v2beta1", 1000, 100),
            of("a.io", "v1", 1000, 100),
            of("apps", "v1", 17800, 15),
            of("autoscaling", "v1", 17500, 15),
            of("autoscaling", "v2", 17500, 30),
        ];
        sort(&mut listed);
        let order: Vec<String> = listed.iter().map(|l| format!("{}/{}", l.group, l.version)).collect();
        let wanted =
            ["apps/v1", "autoscaling/v2", "autoscaling/v1", "a.io/v1", "z.io/v1", "z.io/v2beta1", "z.io/v1alpha1"];
        assert_eq!(order, wanted);
    }

    #[test]
    fn a_resource_list_becomes_a_discovery_version() {
        let list = json!({ "resources": [
            { "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"] },
            { "name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"] },
        ]});
        let found = resources("wardle.example.com", "v1alpha1", &list);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["responseKind"]["group"], "wardle.example.com");
        assert_eq!(found[0]["subresources"][0]["subresource"], "status");
        assert_eq!(found[0]["scope"], "Namespaced");
    }
}
