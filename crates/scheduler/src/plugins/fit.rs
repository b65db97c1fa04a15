//! NodeResourcesFit: the node has room; the emptier node is liked better (LeastAllocated).

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{MAX_SCORE, Plugin, Rejection};
use crate::queue::ClusterEvent;

pub(crate) struct Fit;

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let (want, have, used) = (&pod.requests, &node.allocatable, &node.requested);
        let mut reasons = Vec::new();
        if used.pods + 1 > have.pods {
            reasons.push("Too many pods".to_owned());
        }
        let mut check = |name: &str, want: i64, have: i64, used: i64| {
            if want > 0 && want > have - used {
                reasons.push(format!("Insufficient {name}"));
            }
        };
        check("cpu", want.milli_cpu, have.milli_cpu, used.milli_cpu);
        check("memory", want.memory, have.memory, used.memory);
        check("ephemeral-storage", want.ephemeral_storage, have.ephemeral_storage, used.ephemeral_storage);
        for (name, amount) in &want.other {
            let of = |list: &crate::cache::Amounts| list.other.get(name).copied().unwrap_or(0);
            check(name, *amount, of(have), of(used));
        }
        if reasons.is_empty() { Ok(()) } else { Err(Rejection { reasons }) }
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let free = |have: i64, used: i64| {
            if have == 0 || used > have { 0 } else { (have - used) * MAX_SCORE / have }
        };
        let cpu = free(node.allocatable.milli_cpu, node.non_zero.0 + pod.non_zero.0);
        let memory = free(node.allocatable.memory, node.non_zero.1 + pod.non_zero.1);
        i64::midpoint(cpu, memory)
    }

    fn weight(&self) -> i64 {
        1
    }

    fn hint(&self, event: &ClusterEvent) -> bool {
        matches!(
            event,
            ClusterEvent::NodeAdded | ClusterEvent::PodDeleted | ClusterEvent::NodeChanged { resources: true, .. }
        )
    }
}
