//! The plugins, one file each.

mod balanced;
mod fit;
mod name;
mod node_affinity;
mod ports;
mod scheduling_gates;
mod taints;
mod unschedulable;

use crate::framework::Plugin;

/// Upstream's default plugins in their order, as far as they are here.
pub(crate) fn default_plugins() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(scheduling_gates::SchedulingGates),
        Box::new(unschedulable::NodeUnschedulable),
        Box::new(name::NodeName),
        Box::new(taints::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(ports::NodePorts),
        Box::new(fit::Fit),
        Box::new(balanced::BalancedAllocation),
    ]
}
