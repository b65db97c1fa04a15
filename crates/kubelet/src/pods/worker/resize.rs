//! Resources of a running pod that change (KEP-1287): what its spec asks for is granted when the node has it, and then
//! given to the containers, in place or by a restart, as their resize policies say. What is not granted stays as it was,
//! and a condition says why.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ironkeel_semantics::resources::{CPU, MEMORY, amounts};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use crate::{
    Error, names,
    pods::{actions::Kill, admit, config},
    runtime::{PodView, State},
};

use super::Worker;

/// A request that has to wait for others to go, and a change that the runtime refused, are tried again after this.
const RETRY: Duration = Duration::from_secs(15);

/// Why a resize is not done: the type, reason and message of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// The node will never have as much.
    Infeasible,
    /// Others have it.
    Deferred,
    /// The runtime refused the change.
    Failed,
}

impl Pending {
    /// Type and reason of the condition.
    pub(crate) fn condition(self) -> (&'static str, &'static str) {
        match self {
            Self::Infeasible => ("PodResizePending", "Infeasible"),
            Self::Deferred => ("PodResizePending", "Deferred"),
            Self::Failed => ("PodResizeInProgress", "Error"),
        }
    }
}

/// The resources that the node has granted to a pod's containers.
#[derive(Debug, Default)]
pub(crate) struct Allocation {
    granted: HashMap<String, ResourceRequirements>,
    /// Containers that have not been given yet what was granted.
    to_apply: HashSet<String>,
    /// Why the spec's are not the granted ones, or not in force.
    pub(crate) pending: Option<(Pending, String)>,
}

impl Allocation {
    /// What the container was granted.
    pub(crate) fn of(&self, container: &str) -> Option<&ResourceRequirements> {
        self.granted.get(container)
    }

    /// Whether it is in force.
    pub(crate) fn is_applied(&self, container: &str) -> bool {
        !self.to_apply.contains(container)
    }
}

fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    let lists = |r: &ResourceRequirements| (amounts(r.requests.as_ref()), amounts(r.limits.as_ref()));
    lists(a) == lists(b)
}

fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

/// The resources of which the amount differs.
fn changed(a: &ResourceRequirements, b: &ResourceRequirements) -> Vec<&'static str> {
    let of = |list: &Option<BTreeMap<String, _>>, name: &str| amounts(list.as_ref()).get(name).copied();
    let differs =
        |name: &&str| of(&a.requests, name) != of(&b.requests, name) || of(&a.limits, name) != of(&b.limits, name);
    [CPU, MEMORY].into_iter().filter(differs).collect()
}

impl Worker {
    /// Grants what the spec asks for, when the node has it; the pod with what is granted.
    pub(super) fn grant(&mut self, pod: &Arc<Pod>) -> Arc<Pod> {
        let Some(spec) = &pod.spec else { return pod.clone() };
        let known = [&self.previous.container_statuses, &self.previous.init_container_statuses];
        let in_force = |name: &str| {
            let status = known.into_iter().flatten().flatten().find(|status| status.name == name)?;
            status.resources.clone()
        };
        let mut resized = false;
        for container in all(spec) {
            let asked = container.resources.clone().unwrap_or_default();
            // After a restart of the kubelet, the status knows what is in force.
            let first = || in_force(&container.name).unwrap_or_else(|| asked.clone());
            let granted = self.resources.granted.entry(container.name.clone()).or_insert_with(first);
            resized |= !same(granted, &asked);
        }
        if !resized {
            if self.resources.to_apply.is_empty() {
                self.resources.pending = None;
            }
            *self.handle.granted.lock() = None;
            return pod.clone();
        }
        let mut others = self.kubelet.active_pods();
        others.retain(|other| names::uid(other) != names::uid(pod));
        let allocatable = self.kubelet.node.allocatable();
        let refusal = |pending: Pending| move |refusal: admit::Refusal| (pending, refusal.message);
        let fits = admit::fits(spec, &[], &allocatable)
            .map_err(refusal(Pending::Infeasible))
            .and_then(|()| admit::fits(spec, &others, &allocatable).map_err(refusal(Pending::Deferred)));
        match fits {
            Ok(()) => {
                self.resources.pending = None;
                for container in all(spec) {
                    let asked = container.resources.clone().unwrap_or_default();
                    let before = self.resources.granted.insert(container.name.clone(), asked.clone());
                    if before.is_some_and(|before| !same(&before, &asked)) {
                        self.resources.to_apply.insert(container.name.clone());
                    }
                }
                *self.handle.granted.lock() = None;
                pod.clone()
            }
            Err(pending) => {
                self.resources.pending = Some(pending);
                self.wake_in(RETRY);
                let mut granted = (**pod).clone();
                let spec = granted.spec.get_or_insert_default();
                for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                    container.resources = self.resources.granted.get(&container.name).cloned();
                }
                let granted = Arc::new(granted);
                *self.handle.granted.lock() = Some(granted.clone());
                granted
            }
        }
    }

    /// Gives the containers what was granted since they were started. Those that must be restarted for it come back.
    pub(super) async fn apply_resources(&mut self, pod: &Pod, view: &PodView) -> Result<Vec<Kill>, Error> {
        let mut restarts = Vec::new();
        let Some(spec) = pod.spec.as_ref().filter(|_| !self.resources.to_apply.is_empty()) else { return Ok(restarts) };
        let mut failure = None;
        for container in all(spec) {
            if self.resources.is_applied(&container.name) {
                continue;
            }
            let running = view.container(&container.name).filter(|view| view.state == State::Running);
            let outcome = match running {
                // The next start brings it.
                None => Ok(()),
                Some(view) if self.needs_restart(container) => {
                    restarts.push(Kill {
                        id: view.id.clone(),
                        name: container.name.clone(),
                        message: format!("Container {} resize requires restart", container.name),
                    });
                    Ok(())
                }
                Some(view) => {
                    let wanted = config::linux_resources(&self.kubelet, pod, container);
                    self.kubelet.runtime.update_resources(&view.id, wanted).await
                }
            };
            match outcome {
                Ok(()) => {
                    self.resources.to_apply.remove(&container.name);
                }
                Err(error) => failure = Some((Pending::Failed, error.to_string())),
            }
        }
        // A pod's quota cannot shrink below its containers'.
        self.kubelet.cgroups.create_pod(pod)?;
        if failure.is_some() {
            self.wake_in(RETRY);
        }
        self.resources.pending = failure;
        Ok(restarts)
    }

    fn needs_restart(&self, container: &Container) -> bool {
        let lists = [&self.previous.container_statuses, &self.previous.init_container_statuses];
        let status = lists.into_iter().flatten().flatten().find(|status| status.name == container.name);
        let before = status.and_then(|status| status.resources.clone()).unwrap_or_default();
        let differing = changed(&before, &container.resources.clone().unwrap_or_default());
        let policies = container.resize_policy.iter().flatten();
        policies
            .filter(|policy| policy.restart_policy == "RestartContainer")
            .any(|policy| differing.contains(&policy.resource_name.as_str()))
    }
}
