//! Rules that several components share, over typed objects: what a pod asks for, where it may run, whether it is ready.
//!
//! Pure functions over k8s-openapi types. Not here: anything that talks to the API, and rules that one component alone
//! needs.

pub mod nodes;
pub mod pods;
pub mod qos;
pub mod quantity;
pub mod resources;
pub mod selectors;
pub mod taints;
pub mod well_known;

pub use qos::{QosClass, qos_class};
pub use quantity::Amount;
