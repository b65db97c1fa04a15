//! ClusterRoles with an aggregation rule: their rules are those of the ClusterRoles that the rule selects.

use std::sync::Arc;

use ironkeel_informer::{WorkQueue, run_workers};
use ironkeel_semantics::selectors;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::context::Context;
use crate::error::{Error, unless_gone};

/// The field manager of the rules.
const MANAGER: &str = "clusterrole-aggregation-controller";

pub(crate) async fn run(context: Context) {
    let roles = context.factory.informer::<ClusterRole>();
    let client = context.client(MANAGER);
    let queue: WorkQueue<String> = WorkQueue::new();
    let (all, known) = (queue.clone(), roles.clone());
    // A change of any role may be a change of every aggregate.
    context.feed(&roles, move |_| {
        for role in known.list().iter().filter(|role| role.aggregation_rule.is_some()) {
            all.add(role.name_any());
        }
    });
    roles.synced().await;
    run_workers(queue, 1, context.shutdown.clone(), move |name: String| {
        let (roles, client) = (roles.clone(), client.clone());
        async move {
            let Some(role) = roles.get("", &name) else { return Ok(None) };
            let Some(rule) = &role.aggregation_rule else { return Ok(None) };
            let mut others: Vec<Arc<ClusterRole>> = roles.list();
            others.retain(|other| other.name_any() != name);
            others.sort_by_key(|other| other.name_any());
            let mut rules: Vec<PolicyRule> = Vec::new();
            for selector in rule.cluster_role_selectors.iter().flatten() {
                for other in others.iter().filter(|other| selectors::matches(selector, other.labels())) {
                    for rule in other.rules.iter().flatten() {
                        if !rules.contains(rule) {
                            rules.push(rule.clone());
                        }
                    }
                }
            }
            if role.rules.as_deref().unwrap_or_default() == rules {
                return Ok(None);
            }
            let apply = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": name}, "rules": rules,
            });
            let api = Api::<ClusterRole>::all(client);
            unless_gone(api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(apply)).await)?;
            Ok::<_, Error>(None)
        }
    })
    .await;
}
