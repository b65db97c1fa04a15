//! SchedulingGates: a pod with gates waits until they are lifted (KEP-3521).

use crate::cache::PodInfo;
use crate::framework::Plugin;
use crate::queue::ClusterEvent;

pub(crate) struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), String> {
        let gates = pod.pod.spec.iter().flat_map(|s| s.scheduling_gates.iter().flatten());
        let names: Vec<&str> = gates.map(|g| g.name.as_str()).collect();
        if names.is_empty() { Ok(()) } else { Err(format!("waiting for scheduling gates: [{}]", names.join(" "))) }
    }

    /// Only a change of the pod itself helps.
    fn hint(&self, _event: &ClusterEvent) -> bool {
        false
    }
}
