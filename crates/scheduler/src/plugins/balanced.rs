//! NodeResourcesBalancedAllocation: likes nodes whose CPU and memory are used in like measure.

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{MAX_SCORE, Plugin};
use crate::queue::ClusterEvent;

pub(crate) struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    /// For two resources the standard deviation of the used shares is half their distance.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let share = |used: i64, have: i64| if have == 0 { 1.0 } else { (used as f64 / have as f64).min(1.0) };
        let cpu = share(node.requested.milli_cpu + pod.requests.milli_cpu, node.allocatable.milli_cpu);
        let memory = share(node.requested.memory + pod.requests.memory, node.allocatable.memory);
        ((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64
    }

    fn weight(&self) -> i64 {
        1
    }

    fn hint(&self, _event: &ClusterEvent) -> bool {
        false
    }
}
