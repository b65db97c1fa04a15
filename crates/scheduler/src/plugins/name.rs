//! NodeName: a pod that names its node goes nowhere else.

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{Plugin, Rejection};
use crate::queue::ClusterEvent;

pub(crate) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        match pod.node() {
            Some(wanted) if wanted != node.name => Err(Rejection::of("node(s) didn't match the requested node name")),
            _ => Ok(()),
        }
    }

    fn hint(&self, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded)
    }
}
