//! kube-rs, pinned in one place, and its transports.
