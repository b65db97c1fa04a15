//! The scheduling cycle: filter the nodes, score what is left, choose.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rand::Rng as _;

use crate::cache::{Cache, NodeInfo, PodInfo};
use crate::plugins;
use crate::queue::ClusterEvent;

/// Clusters up to this many nodes are searched whole.
const MIN_FEASIBLE_NODES: usize = 100;
/// Of larger clusters at least this share is searched, in percent.
const MIN_FEASIBLE_PERCENT: usize = 5;
/// The best score of a plugin.
pub(crate) const MAX_SCORE: i64 = 100;

/// Why a node does not do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rejection {
    /// The words of the event, without the count: `Insufficient cpu`.
    pub(crate) reasons: Vec<String>,
}

impl Rejection {
    pub(crate) fn of(reason: impl Into<String>) -> Self {
        Rejection { reasons: vec![reason.into()] }
    }
}

/// What a plugin can do. Every method has a neutral answer.
pub(crate) trait Plugin: Send + Sync {
    /// The plugin's upstream name.
    fn name(&self) -> &'static str;

    /// Whether the pod may enter the queue at all; the words say why not.
    fn pre_enqueue(&self, _pod: &PodInfo) -> Result<(), String> {
        Ok(())
    }

    /// Narrows the search to these nodes before any is looked at; `None` for all.
    fn only_nodes(&self, _pod: &PodInfo) -> Option<BTreeSet<String>> {
        None
    }

    /// Whether the pod can run on the node.
    fn filter(&self, _pod: &PodInfo, _node: &NodeInfo) -> Result<(), Rejection> {
        Ok(())
    }

    /// How well the node suits, in the plugin's own measure.
    fn score(&self, _pod: &PodInfo, _node: &NodeInfo) -> i64 {
        0
    }

    /// Brings the scores of all candidates to 0..=[`MAX_SCORE`].
    fn normalize(&self, _scores: &mut [i64]) {}

    /// The share of this plugin's score; 0 for plugins that only filter.
    fn weight(&self) -> i64 {
        0
    }

    /// Whether this event may let a pod through that this plugin rejected.
    fn hint(&self, event: &ClusterEvent) -> bool;
}

/// Scales to the best score; with `reverse`, the highest value becomes the worst score.
pub(crate) fn normalize_by_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}

/// Why a pod has no node.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The event's and the condition's message.
    pub(crate) message: String,
    /// Reason of the condition: `Unschedulable` or `SchedulingGated`.
    pub(crate) reason: &'static str,
    /// Plugins that said no.
    pub(crate) rejected_by: BTreeSet<&'static str>,
}

/// The plugins of a profile, in their order.
pub(crate) struct Framework {
    plugins: Vec<Box<dyn Plugin>>,
    /// Where the next search begins, so that all nodes get their turn.
    next_start: std::cell::Cell<usize>,
}

impl Framework {
    /// Upstream's default profile, as far as its plugins are here.
    pub(crate) fn default_profile() -> Self {
        Framework { plugins: plugins::default_plugins(), next_start: std::cell::Cell::new(0) }
    }

    fn enough(&self, nodes: usize) -> usize {
        if nodes <= MIN_FEASIBLE_NODES {
            return nodes;
        }
        let percent = 50usize.saturating_sub(nodes / 125).max(MIN_FEASIBLE_PERCENT);
        (nodes * percent / 100).max(MIN_FEASIBLE_NODES)
    }

    /// The node for a pod.
    pub(crate) fn choose(&self, pod: &PodInfo, cache: &Cache) -> Result<String, Failure> {
        for plugin in &self.plugins {
            if let Err(message) = plugin.pre_enqueue(pod) {
                return Err(Failure {
                    message,
                    reason: "SchedulingGated",
                    rejected_by: BTreeSet::from([plugin.name()]),
                });
            }
        }
        let nodes = cache.nodes();
        let only: Vec<BTreeSet<String>> = self.plugins.iter().filter_map(|p| p.only_nodes(pod)).collect();
        let enough = self.enough(nodes.len());
        let start = if nodes.is_empty() { 0 } else { self.next_start.get() % nodes.len() };
        let mut feasible: Vec<&NodeInfo> = Vec::new();
        let mut why: BTreeMap<String, usize> = BTreeMap::new();
        let mut rejected_by = BTreeSet::new();
        let mut looked_at = 0;
        for node in nodes[start..].iter().chain(&nodes[..start]) {
            looked_at += 1;
            if only.iter().any(|names| !names.contains(&node.name)) {
                rejected_by.insert("NodeAffinity");
                *why.entry("node(s) didn't match Pod's node affinity/selector".to_owned()).or_default() += 1;
                continue;
            }
            match self.plugins.iter().find_map(|p| p.filter(pod, node).err().map(|r| (p.name(), r))) {
                None => {
                    feasible.push(node);
                    if feasible.len() >= enough {
                        break;
                    }
                }
                Some((plugin, rejection)) => {
                    rejected_by.insert(plugin);
                    for reason in rejection.reasons {
                        *why.entry(reason).or_default() += 1;
                    }
                }
            }
        }
        self.next_start.set(start + looked_at);
        match feasible.as_slice() {
            [] => Err(Failure { message: no_node_message(nodes.len(), &why), reason: "Unschedulable", rejected_by }),
            [one] => Ok(one.name.clone()),
            several => Ok(self.best(pod, several)),
        }
    }

    fn best(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> String {
        let mut totals = vec![0i64; nodes.len()];
        for plugin in self.plugins.iter().filter(|p| p.weight() > 0) {
            let mut scores: Vec<i64> = nodes.iter().map(|n| plugin.score(pod, n)).collect();
            plugin.normalize(&mut scores);
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += score * plugin.weight();
            }
        }
        let best = totals.iter().copied().max().unwrap_or(0);
        let winners: Vec<usize> = (0..nodes.len()).filter(|i| totals[*i] == best).collect();
        let winner = winners[rand::rng().random_range(0..winners.len())];
        nodes[winner].name.clone()
    }

    /// Whether the event may help a pod that these plugins rejected.
    pub(crate) fn hint(
        plugins: &[Box<dyn Plugin>],
        rejected_by: &BTreeSet<&'static str>,
        event: &ClusterEvent,
    ) -> bool {
        rejected_by.is_empty() || plugins.iter().any(|p| rejected_by.contains(p.name()) && p.hint(event))
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).`
fn no_node_message(nodes: usize, why: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut reasons: Vec<String> = why.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort_by_key(|r| Reverse(r.len()));
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}
