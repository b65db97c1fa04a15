//! Mirror pods: the API's images of static pods, made by the kubelet, never obeyed by it.

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
};

use crate::{Error, names};

/// Makes the static pod's image, unless it is there. An image of an older manifest is deleted first.
pub(crate) async fn ensure(client: &Client, pod: &Pod, mirror: Option<&Pod>, node: &Node) -> Result<(), Error> {
    let hash = names::annotation(pod, names::CONFIG_HASH).unwrap_or_default();
    if let Some(mirror) = mirror {
        let current = names::annotation(mirror, names::CONFIG_MIRROR) == Some(hash);
        if current && mirror.metadata.deletion_timestamp.is_none() {
            return Ok(());
        }
        delete(client, mirror).await?;
    }
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(names::CONFIG_MIRROR.into(), hash.to_owned());
    let image = Pod {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            labels: pod.metadata.labels.clone(),
            annotations: Some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: node.metadata.name.clone().unwrap_or_default(),
                uid: node.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: pod.spec.clone(),
        status: None,
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), names::namespace(pod));
    match api.create(&PostParams::default(), &image).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a mirror pod at once.
pub(crate) async fn delete(client: &Client, mirror: &Pod) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), names::namespace(mirror));
    let preconditions = Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None };
    let parameters =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(names::name(mirror), &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
