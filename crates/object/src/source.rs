//! Reading stored objects without knowing who keeps them.

use std::sync::Arc;

use ironkeel_schema::Resource;

use crate::Value;

/// What authorizers and admission plugins see of the cluster: the server's watch cache.
/// Answers come from memory and never wait.
pub trait ObjectSource: Send + Sync + 'static {
    /// One object; `namespace` is empty for cluster-wide resources.
    fn get(&self, resource: &'static Resource, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// All objects of a resource; an empty `namespace` means all namespaces.
    fn list(&self, resource: &'static Resource, namespace: &str) -> Vec<Arc<Value>>;
    /// Changes whenever any object of the resource changes; lets a reader keep an index.
    fn version(&self, resource: &'static Resource) -> u64;
}
