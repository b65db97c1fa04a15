//! NodePorts: host ports are given once a node.

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{Plugin, Rejection};
use crate::queue::ClusterEvent;

pub(crate) struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if pod.ports.iter().any(|wanted| node.ports.iter().any(|taken| wanted.conflicts(taken))) {
            Err(Rejection::of("node(s) didn't have free ports for the requested pod ports"))
        } else {
            Ok(())
        }
    }

    fn hint(&self, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::PodDeleted)
    }
}
