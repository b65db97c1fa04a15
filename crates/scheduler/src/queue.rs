//! Which pod is next: active by priority and age, backing off, or waiting for an event that helps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

use crate::cache::PodInfo;
use crate::framework::{Framework, Plugin};
use crate::plugins;

/// First pause of a pod that found no node.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause of a pod that found no node.
const BACKOFF_LONGEST: Duration = Duration::from_secs(10);
/// A pod that no event has helped is tried again after this all the same.
const UNSCHEDULABLE_LONGEST: Duration = Duration::from_secs(300);

/// Something that may let a rejected pod through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterEvent {
    /// A new node.
    NodeAdded,
    /// A node got more room, other labels, or other taints.
    NodeChanged {
        /// Allocatable changed.
        resources: bool,
        /// Labels changed.
        labels: bool,
        /// Taints or `unschedulable` changed.
        taints: bool,
    },
    /// A pod left its node.
    PodDeleted,
}

/// What a change of a node means for waiting pods; `None` for nothing (a heartbeat).
pub(crate) fn node_change(old: &Node, new: &Node) -> Option<ClusterEvent> {
    let allocatable = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    let taints = |n: &Node| n.spec.as_ref().map(|s| (s.taints.clone(), s.unschedulable));
    let (resources, labels, taints) =
        (allocatable(old) != allocatable(new), old.metadata.labels != new.metadata.labels, taints(old) != taints(new));
    (resources || labels || taints).then_some(ClusterEvent::NodeChanged { resources, labels, taints })
}

/// A pod on its way.
#[derive(Clone, Debug)]
pub(crate) struct QueuedPod {
    pub(crate) info: Arc<PodInfo>,
    /// When it came into the queue first.
    added: Instant,
    attempts: u32,
}

impl QueuedPod {
    fn backoff(&self) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(8);
        (BACKOFF_FIRST * 2u32.pow(doublings)).min(BACKOFF_LONGEST)
    }
}

/// Where a pod is.
#[derive(Debug)]
enum Place {
    Active((i64, Instant, u64)),
    BackingOff((Instant, u64)),
    Unschedulable {
        pod: QueuedPod,
        rejected_by: BTreeSet<&'static str>,
        since: Instant,
    },
    /// Handed out; an update meanwhile is kept in mind.
    InFlight,
}

/// The queue; owned by one task.
pub(crate) struct Queue {
    active: BTreeMap<(i64, Instant, u64), QueuedPod>,
    backing_off: BTreeMap<(Instant, u64), QueuedPod>,
    places: HashMap<String, Place>,
    /// An event came while a pod was in flight: it goes to back-off rather than waiting.
    moved_while_in_flight: bool,
    plugins: Vec<Box<dyn Plugin>>,
    sequence: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            active: BTreeMap::new(),
            backing_off: BTreeMap::new(),
            places: HashMap::new(),
            moved_while_in_flight: false,
            plugins: plugins::default_plugins(),
            sequence: 0,
        }
    }
}

impl Queue {
    /// A pod without a node. One that waits stays where it is unless it changed itself.
    pub(crate) fn add(&mut self, info: Arc<PodInfo>, changed: bool, now: Instant) {
        let uid = info.uid.clone();
        match self.places.get_mut(&uid) {
            None => {
                let pod = QueuedPod { info, added: now, attempts: 0 };
                self.activate(pod);
            }
            Some(Place::Active(at)) => {
                if let Some(pod) = self.active.get_mut(at) {
                    pod.info = info;
                }
            }
            Some(Place::BackingOff(at)) => {
                if let Some(pod) = self.backing_off.get_mut(at) {
                    pod.info = info;
                }
            }
            Some(Place::Unschedulable { pod, .. }) => {
                pod.info = info;
                if changed {
                    let pod = pod.clone();
                    self.activate(pod);
                }
            }
            Some(Place::InFlight) => {}
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        match self.places.remove(uid) {
            Some(Place::Active(at)) => drop(self.active.remove(&at)),
            Some(Place::BackingOff(at)) => drop(self.backing_off.remove(&at)),
            _ => {}
        }
    }

    fn activate(&mut self, pod: QueuedPod) {
        self.sequence += 1;
        // Higher priority first, then who waits longest.
        let at = (-i64::from(pod.info.priority), pod.added, self.sequence);
        self.places.insert(pod.info.uid.clone(), Place::Active(at));
        self.active.insert(at, pod);
    }

    fn back_off(&mut self, pod: QueuedPod, until: Instant) {
        self.sequence += 1;
        let at = (until, self.sequence);
        self.places.insert(pod.info.uid.clone(), Place::BackingOff(at));
        self.backing_off.insert(at, pod);
    }

    fn take_due(&mut self, now: Instant) {
        while let Some(first) = self.backing_off.first_entry() {
            if first.key().0 > now {
                break;
            }
            let pod = first.remove();
            self.activate(pod);
        }
        let stale =
            |p: &Place| matches!(p, Place::Unschedulable { since, .. } if *since + UNSCHEDULABLE_LONGEST <= now);
        let due: Vec<String> = self.places.iter().filter(|(_, p)| stale(p)).map(|(uid, _)| uid.clone()).collect();
        for uid in due {
            if let Some(Place::Unschedulable { pod, .. }) = self.places.remove(&uid) {
                self.activate(pod);
            }
        }
    }

    /// The next pod to schedule.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<QueuedPod> {
        if self.active.is_empty() {
            self.take_due(now);
        }
        let (_, mut pod) = self.active.pop_first()?;
        pod.attempts += 1;
        self.places.insert(pod.info.uid.clone(), Place::InFlight);
        self.moved_while_in_flight = false;
        Some(pod)
    }

    /// When [`Queue::pop`] may have a pod again without an event.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let waiting = self.places.values().filter_map(|p| match p {
            Place::Unschedulable { since, .. } => Some(*since + UNSCHEDULABLE_LONGEST),
            _ => None,
        });
        waiting.chain(self.backing_off.first_key_value().map(|(k, _)| k.0)).min()
    }

    /// A pod that found no node waits for an event that its rejecters hint at.
    pub(crate) fn park(&mut self, pod: QueuedPod, rejected_by: BTreeSet<&'static str>, now: Instant) {
        if !matches!(self.places.get(&pod.info.uid), Some(Place::InFlight)) {
            return;
        }
        if self.moved_while_in_flight {
            let until = now + pod.backoff();
            self.back_off(pod, until);
        } else {
            self.places.insert(pod.info.uid.clone(), Place::Unschedulable { pod, rejected_by, since: now });
        }
    }

    /// A pod whose binding failed comes back after its back-off.
    pub(crate) fn retry(&mut self, pod: QueuedPod, now: Instant) {
        if matches!(self.places.get(&pod.info.uid), Some(Place::InFlight)) {
            let until = now + pod.backoff();
            self.back_off(pod, until);
        }
    }

    /// Wakes the pods that the event may help.
    pub(crate) fn moved(&mut self, event: &ClusterEvent, now: Instant) {
        self.moved_while_in_flight = true;
        let helped = |p: &Place| match p {
            Place::Unschedulable { rejected_by, .. } => Framework::hint(&self.plugins, rejected_by, event),
            _ => false,
        };
        let due: Vec<String> = self.places.iter().filter(|(_, p)| helped(p)).map(|(uid, _)| uid.clone()).collect();
        for uid in due {
            if let Some(Place::Unschedulable { pod, since, .. }) = self.places.remove(&uid) {
                let until = since + pod.backoff();
                if until <= now { self.activate(pod) } else { self.back_off(pod, until) }
            }
        }
    }
}
