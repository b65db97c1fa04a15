//! What the nodes have and hold, pods included that are assumed but not yet bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ironkeel_semantics::resources::{self, HostPort};
use k8s_openapi::api::core::v1::{Node, Pod};

/// CPU of a container without a request when nodes are scored, in millicores.
const DEFAULT_MILLI_CPU: i64 = 100;
/// Memory of a container without a request when nodes are scored, in bytes.
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Amounts: CPU in millicores, the rest in units or bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral_storage: i64,
    pub(crate) pods: i64,
    /// Extended resources and huge pages.
    pub(crate) other: BTreeMap<String, i64>,
}

impl Amounts {
    fn of(list: &resources::ResourceList) -> Self {
        let mut out = Amounts::default();
        for (name, amount) in list {
            match name.as_str() {
                resources::CPU => out.milli_cpu = amount.millis(),
                resources::MEMORY => out.memory = amount.units(),
                resources::EPHEMERAL_STORAGE => out.ephemeral_storage = amount.units(),
                resources::PODS => out.pods = amount.units(),
                _ => drop(out.other.insert(name.clone(), amount.units())),
            }
        }
        out
    }

    fn change(&mut self, by: &Amounts, sign: i64) {
        self.milli_cpu += sign * by.milli_cpu;
        self.memory += sign * by.memory;
        self.ephemeral_storage += sign * by.ephemeral_storage;
        self.pods += sign * by.pods;
        for (name, amount) in &by.other {
            *self.other.entry(name.clone()).or_default() += sign * amount;
        }
    }
}

/// A pod with what scheduling asks of it, computed once.
#[derive(Debug)]
pub(crate) struct PodInfo {
    pub(crate) pod: Arc<Pod>,
    pub(crate) uid: String,
    pub(crate) requests: Amounts,
    /// CPU millicores and memory bytes for scoring: containers without a request count as small ones.
    pub(crate) non_zero: (i64, i64),
    pub(crate) ports: Vec<HostPort>,
    pub(crate) priority: i32,
}

impl PodInfo {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let mut requests = Amounts::of(&resources::requests(&pod));
        requests.pods = 1;
        let containers = pod.spec.iter().flat_map(|s| &s.containers);
        let (mut cpu, mut memory) = (requests.milli_cpu, requests.memory);
        for container in containers {
            let own = Amounts::of(&resources::container_requests(container));
            cpu += if own.milli_cpu == 0 { DEFAULT_MILLI_CPU } else { 0 };
            memory += if own.memory == 0 { DEFAULT_MEMORY_BYTES } else { 0 };
        }
        let ports = pod.spec.as_ref().map(resources::host_ports).unwrap_or_default();
        let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
        PodInfo { uid: Self::uid_of(&pod), requests, non_zero: (cpu, memory), ports, priority, pod }
    }

    pub(crate) fn uid_of(pod: &Pod) -> String {
        pod.metadata.uid.clone().unwrap_or_default()
    }

    pub(crate) fn node(&self) -> Option<&str> {
        ironkeel_semantics::pods::node_name(&self.pod)
    }
}

/// A node with what runs there.
#[derive(Debug)]
pub(crate) struct NodeInfo {
    pub(crate) node: Arc<Node>,
    pub(crate) name: String,
    pub(crate) allocatable: Amounts,
    pub(crate) requested: Amounts,
    pub(crate) non_zero: (i64, i64),
    pub(crate) ports: Vec<HostPort>,
    pods: HashMap<String, Arc<PodInfo>>,
}

impl NodeInfo {
    fn new(node: Arc<Node>) -> Self {
        let mut info = NodeInfo {
            name: node.metadata.name.clone().unwrap_or_default(),
            allocatable: Amounts::default(),
            requested: Amounts::default(),
            non_zero: (0, 0),
            ports: Vec::new(),
            pods: HashMap::new(),
            node: node.clone(),
        };
        info.set(node);
        info
    }

    fn set(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        self.allocatable = Amounts::of(&resources::amounts(allocatable));
        self.node = node;
    }

    fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.change(&pod.requests, 1);
        self.non_zero.0 += pod.non_zero.0;
        self.non_zero.1 += pod.non_zero.1;
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.insert(pod.uid.clone(), pod);
    }

    fn remove(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.requested.change(&pod.requests, -1);
        self.non_zero.0 -= pod.non_zero.0;
        self.non_zero.1 -= pod.non_zero.1;
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}

/// All nodes. Nodes keep their place, so that a search can go on where the last one ended.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    nodes: Vec<NodeInfo>,
    places: HashMap<String, usize>,
    /// Where each pod is, by UID; `true` while it is only assumed.
    pods: HashMap<String, (String, bool)>,
    /// Pods on nodes that are not known (yet).
    homeless: HashMap<String, Vec<Arc<PodInfo>>>,
}

impl Cache {
    pub(crate) fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        match self.places.get(&name) {
            Some(at) => self.nodes[*at].set(node),
            None => {
                let mut info = NodeInfo::new(node);
                for pod in self.homeless.remove(&name).unwrap_or_default() {
                    info.add(pod);
                }
                self.places.insert(name, self.nodes.len());
                self.nodes.push(info);
            }
        }
    }

    pub(crate) fn remove_node(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let Some(at) = self.places.remove(&name) else { return };
        let gone = self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.places.insert(moved.name.clone(), at);
        }
        self.homeless.insert(name, gone.pods.into_values().collect());
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        match self.places.get(node) {
            Some(at) => self.nodes[*at].add(pod),
            None => self.homeless.entry(node.to_owned()).or_default().push(pod),
        }
    }

    /// Counts a pod on its node before the API knows.
    pub(crate) fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.pods.insert(pod.uid.clone(), (node.to_owned(), true));
        self.place(pod.clone(), node);
    }

    pub(crate) fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|(_, assumed)| *assumed)
    }

    /// A pod that the API shows on a node; replaces what was known or assumed of it.
    pub(crate) fn add_pod(&mut self, pod: &Arc<PodInfo>) {
        let Some(node) = pod.node() else { return };
        self.remove_pod(&pod.uid);
        self.pods.insert(pod.uid.clone(), (node.to_owned(), false));
        self.place(pod.clone(), node);
    }

    /// Answers whether the pod was on a node.
    pub(crate) fn remove_pod(&mut self, uid: &str) -> bool {
        let Some((node, _)) = self.pods.remove(uid) else { return false };
        match self.places.get(&node) {
            Some(at) => self.nodes[*at].remove(uid),
            None => {
                if let Some(pods) = self.homeless.get_mut(&node) {
                    pods.retain(|p| p.uid != uid);
                }
            }
        }
        true
    }

    /// Takes an assumption back; what the API has shown meanwhile stays.
    pub(crate) fn forget(&mut self, pod: &PodInfo) {
        if self.is_assumed(&pod.uid) {
            self.remove_pod(&pod.uid);
        }
    }
}
