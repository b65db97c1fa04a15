//! The kubelet: pods on this node, through CRI only.
