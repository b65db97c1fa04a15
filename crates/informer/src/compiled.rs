//! Makes the code for types that several components read, once for all of them.
//!
//! A generic function is compiled in every crate that calls it, unless a crate below has it already and both are built
//! for size. Reading a Pod alone is a fifth of a megabyte, so the types that more than one component caches are named
//! here. Nothing calls this: what nobody needs of it, the linker leaves out.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{Informer, WatchConfig};

/// Names the types whose code other crates shall find here.
#[doc(hidden)]
pub fn compile_shared_types() {
    shared::<Pod>();
    shared::<Node>();
    shared::<Service>();
    shared::<EndpointSlice>();
    shared::<ConfigMap>();
    shared::<PersistentVolume>();
    shared::<PersistentVolumeClaim>();
}

fn shared<K>()
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static,
{
    let start: fn(Api<K>, WatchConfig, CancellationToken) -> Informer<K> = Informer::start;
    let write: fn(&K) -> serde_json::Result<Vec<u8>> = serde_json::to_vec;
    std::hint::black_box((start, write, Informer::<K>::subscribe as fn(&Informer<K>) -> _));
}
