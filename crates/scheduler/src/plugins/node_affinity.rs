//! NodeAffinity: `nodeSelector` and required node affinity, and preferred terms as scores.

use std::collections::BTreeSet;

use ironkeel_semantics::nodes;

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{Plugin, Rejection, normalize_by_max};
use crate::queue::ClusterEvent;

pub(crate) struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    /// Pods of DaemonSets name their node in `matchFields`: no other node is looked at.
    fn only_nodes(&self, pod: &PodInfo) -> Option<BTreeSet<String>> {
        let affinity = pod.pod.spec.as_ref()?.affinity.as_ref();
        let terms = &nodes::required_affinity(affinity)?.node_selector_terms;
        let mut names = BTreeSet::new();
        for term in terms {
            let fields = term.match_fields.as_deref().unwrap_or_default();
            let by_name = fields.iter().find(|f| f.key == "metadata.name" && f.operator == "In")?;
            names.extend(by_name.values.iter().flatten().cloned());
        }
        (!terms.is_empty()).then_some(names)
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if nodes::selected_by(&pod.pod, &node.node) {
            Ok(())
        } else {
            Err(Rejection::of("node(s) didn't match Pod's node affinity/selector"))
        }
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let affinity = pod.pod.spec.as_ref().and_then(|s| s.affinity.as_ref()?.node_affinity.as_ref());
        let preferred =
            affinity.iter().flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten());
        preferred.filter(|p| nodes::term_matches(&p.preference, &node.node)).map(|p| i64::from(p.weight)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_max(scores, false);
    }

    fn weight(&self) -> i64 {
        2
    }

    fn hint(&self, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeChanged { labels: true, .. })
    }
}
