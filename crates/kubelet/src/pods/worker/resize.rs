//! Resources of a running pod that change (KEP-1287, and KEP-5419 for the pod's own): what its spec asks for is granted
//! when the node has it, and then given to the containers, in place or by a restart, as their resize policies say, and
//! to the pod's cgroup. What is not granted stays as it was, and a condition says why.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ironkeel_semantics::{
    quantity::Amount,
    resources::{CPU, MEMORY, amounts},
};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, ResourceRequirements};

use crate::{
    Error, names,
    pods::{actions::Kill, admit, cgroups::Limits, config},
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

/// The resources that the node has granted to a pod and its containers.
#[derive(Debug, Default)]
pub(crate) struct Allocation {
    granted: HashMap<String, ResourceRequirements>,
    /// The pod's own; `None` until it was looked at.
    pod: Option<Option<ResourceRequirements>>,
    /// Containers that have not been given yet what was granted.
    to_apply: HashSet<String>,
    /// The pod's cgroup has not been given yet what was granted.
    pod_to_apply: bool,
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

    /// Whether all that was granted is in force.
    pub(crate) fn is_all_applied(&self) -> bool {
        self.to_apply.is_empty() && !self.pod_to_apply
    }

    /// Takes over what was granted before the first look.
    fn begin_with(&mut self, known: &Pod) {
        let Some(spec) = &known.spec else { return };
        self.pod.get_or_insert_with(|| spec.resources.clone());
        for container in all(spec) {
            let resources = || container.resources.clone().unwrap_or_default();
            self.granted.entry(container.name.clone()).or_insert_with(resources);
        }
    }

    /// The pod with what was granted in the place of what it asks for.
    pub(crate) fn granted(&self, pod: &Pod) -> Pod {
        let mut granted = pod.clone();
        let spec = granted.spec.get_or_insert_default();
        if let Some(own) = &self.pod {
            spec.resources = own.clone();
        }
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            if let Some(resources) = self.granted.get(&container.name) {
                container.resources = Some(resources.clone());
            }
        }
        granted
    }
}

/// What a pod asks for as a whole, with the amounts that its status says are in force.
fn known_amounts(
    spec: &PodSpec,
    asked: &ResourceRequirements,
    status: Option<&ResourceRequirements>,
) -> ResourceRequirements {
    let mut resources = asked.clone();
    let Some(status) = status else { return resources };
    // The status counts the overhead in.
    let overhead = amounts(spec.overhead.as_ref());
    let lists = [(&mut resources.requests, &status.requests), (&mut resources.limits, &status.limits)];
    for (mine, theirs) in lists {
        for (name, amount) in mine.iter_mut().flatten() {
            let Some(known) = theirs.as_ref().and_then(|list| list.get(name)) else { continue };
            *amount = match overhead.get(name) {
                Some(overhead) => (Amount::from(known) - *overhead).to_quantity(),
                None => known.clone(),
            };
        }
    }
    resources
}

/// The pod with what its status says is in force in the place of what it asks for: after a restart of the kubelet,
/// nobody else knows. `None` when that is the same.
pub(crate) fn in_force(pod: &Pod, status: &PodStatus) -> Option<Arc<Pod>> {
    let spec = pod.spec.as_ref()?;
    let whole = spec.resources.as_ref().map(|asked| known_amounts(spec, asked, status.resources.as_ref()));
    let known = [&status.container_statuses, &status.init_container_statuses].into_iter().flatten().flatten();
    let granted = known.filter_map(|status| Some((status.name.clone(), status.resources.clone()?))).collect();
    let known = Allocation { granted, pod: Some(whole), ..Allocation::default() }.granted(pod);
    asks_otherwise(&known, pod).then(|| Arc::new(known))
}

/// Whether the resources that a pod asks for have changed.
pub(crate) fn asks_otherwise(before: &Pod, now: &Pod) -> bool {
    let (Some(before), Some(now)) = (&before.spec, &now.spec) else { return false };
    let nothing = ResourceRequirements::default();
    let differ = |before: &Option<ResourceRequirements>, now: &Option<ResourceRequirements>| {
        !same(before.as_ref().unwrap_or(&nothing), now.as_ref().unwrap_or(&nothing))
    };
    let changed = |(before, now): (&Container, &Container)| differ(&before.resources, &now.resources);
    before.resources.is_some() != now.resources.is_some()
        || differ(&before.resources, &now.resources)
        || all(before).zip(all(now)).any(changed)
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
        let (kubelet, uid) = (self.kubelet.clone(), names::uid(pod));
        let _granting = kubelet.granting.lock();
        let known = self.handle.granted.lock().clone();
        self.resources.begin_with(known.as_ref().unwrap_or(pod));
        let whole_resized = match (self.resources.pod.as_ref().and_then(Option::as_ref), &spec.resources) {
            (Some(granted), Some(asked)) => !same(granted, asked),
            (granted, asked) => granted.is_some() != asked.is_some(),
        };
        let mut resized = whole_resized;
        for container in all(spec) {
            let asked = container.resources.clone().unwrap_or_default();
            resized |= self.resources.of(&container.name).is_none_or(|granted| !same(granted, &asked));
        }
        if !resized {
            if self.resources.is_all_applied() {
                self.resources.pending = None;
            }
            if self.settle(pod) {
                kubelet.wake_waiting(uid);
            }
            return pod.clone();
        }
        let mut others = self.kubelet.active_pods();
        others.retain(|other| names::uid(other) != uid);
        let allocatable = self.kubelet.node.allocatable();
        let refusal = |pending: Pending| move |refusal: admit::Refusal| (pending, refusal.message);
        let fits = admit::fits(spec, &[], &allocatable)
            .map_err(refusal(Pending::Infeasible))
            .and_then(|()| admit::fits(spec, &others, &allocatable).map_err(refusal(Pending::Deferred)));
        match fits {
            Ok(()) => {
                self.resources.pending = None;
                self.resources.pod = Some(spec.resources.clone());
                self.resources.pod_to_apply |= whole_resized;
                for container in all(spec) {
                    let asked = container.resources.clone().unwrap_or_default();
                    let before = self.resources.granted.insert(container.name.clone(), asked.clone());
                    if before.is_some_and(|before| !same(&before, &asked)) {
                        self.resources.to_apply.insert(container.name.clone());
                    }
                }
                self.settle(pod);
                kubelet.wake_waiting(uid);
                pod.clone()
            }
            Err(pending) => {
                self.resources.pending = Some(pending);
                self.wake_in(RETRY);
                let granted = Arc::new(self.resources.granted(pod));
                *self.handle.granted.lock() = Some(granted.clone());
                granted
            }
        }
    }

    /// Notes that the pod has what it asks for; what it has come to ask for meanwhile waits for the next look. Whether
    /// it had to wait.
    fn settle(&self, pod: &Arc<Pod>) -> bool {
        let asked = self.handle.wish.lock().pod.clone();
        let granted = asks_otherwise(pod, &asked).then(|| pod.clone());
        std::mem::replace(&mut *self.handle.granted.lock(), granted).is_some()
    }

    /// Gives the containers what was granted since they were started. Those that must be restarted for it come back.
    pub(super) async fn apply_resources(&mut self, pod: &Pod, view: &PodView) -> Result<Vec<Kill>, Error> {
        let mut restarts = Vec::new();
        let Some(spec) = pod.spec.as_ref().filter(|_| !self.resources.is_all_applied()) else { return Ok(restarts) };
        let mut failure = None;
        // More room first, for the containers to grow into; less of it when they have shrunk.
        if let Err(error) = self.kubelet.cgroups.limit_pod(pod, Limits::Raised) {
            failure = Some((Pending::Failed, error.to_string()));
        }
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
        match self.kubelet.cgroups.limit_pod(pod, Limits::All) {
            Ok(()) => self.resources.pod_to_apply = false,
            Err(error) => {
                self.resources.pod_to_apply = true;
                failure = failure.or(Some((Pending::Failed, error.to_string())));
            }
        }
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
