//! Who controls an object, and how a controller claims the objects that its selector matches.
//!
//! Answers to `pkg/controller`'s controller_ref_manager: adopt matching orphans, release owned objects that no longer
//! match, never touch another controller's. An owner that is being deleted adopts nothing.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Error;

/// The owner reference that marks the controller, if the object has one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_deref().unwrap_or_default().iter().find(|owner| owner.controller == Some(true))
}

/// The owner reference by which `owner` controls its objects; it blocks the owner's foreground deletion.
pub fn controller_reference<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Claims objects for one owner.
pub struct ControllerRefManager {
    client: Client,
    owner: OwnerReference,
    namespace: String,
    owner_deleted: bool,
}

impl ControllerRefManager {
    /// Claims for `owner`, an object with a namespace.
    pub fn new<O: Resource<DynamicType = ()>>(client: Client, owner: &O) -> Self {
        Self {
            client,
            owner: controller_reference(owner),
            namespace: owner.namespace().unwrap_or_default(),
            owner_deleted: owner.meta().deletion_timestamp.is_some(),
        }
    }

    /// Those of `objects` that the owner controls after this call: owned ones that `matches` their labels, and orphans
    /// that do and could be adopted. Owned ones that no longer match are released.
    ///
    /// `owner_alive` reads the owner from the API, past every cache; it is asked once, before the first adoption, for
    /// the owner's uid and whether it is free of a deletion timestamp.
    ///
    /// # Errors
    /// The API refused an adoption or a release for another reason than that the object is gone or has changed hands.
    pub async fn claim<K, F>(
        &self,
        objects: impl IntoIterator<Item = Arc<K>>,
        matches: impl Fn(&BTreeMap<String, String>) -> bool,
        owner_alive: impl Fn() -> F,
    ) -> Result<Vec<Arc<K>>, Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
        F: Future<Output = kube::Result<Option<ObjectMeta>>>,
    {
        let mut claimed = Vec::new();
        let mut may_adopt: Option<bool> = None;
        for object in objects {
            let meta = object.meta();
            let matching = matches(meta.labels.as_ref().unwrap_or(&BTreeMap::new()));
            match controller_of(meta) {
                Some(owner) if owner.uid != self.owner.uid => {}
                Some(_) if matching => claimed.push(object),
                Some(_) => {
                    if !self.owner_deleted {
                        self.release(object.as_ref()).await?;
                    }
                }
                None => {
                    if self.owner_deleted || !matching || meta.deletion_timestamp.is_some() {
                        continue;
                    }
                    let allowed = match may_adopt {
                        Some(allowed) => allowed,
                        None => {
                            let live = owner_alive().await?;
                            *may_adopt.insert(live.is_some_and(|live| {
                                live.uid.as_deref() == Some(&self.owner.uid) && live.deletion_timestamp.is_none()
                            }))
                        }
                    };
                    if !allowed {
                        return Err(Error::OwnerGone {
                            kind: self.owner.kind.clone(),
                            namespace: self.namespace.clone(),
                            name: self.owner.name.clone(),
                        });
                    }
                    if self.adopt(object.as_ref()).await? {
                        claimed.push(object);
                    }
                }
            }
        }
        Ok(claimed)
    }

    async fn adopt<K>(&self, object: &K) -> Result<bool, Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let patch = json!({"metadata": {"uid": object.uid(), "ownerReferences": [self.owner]}});
        self.patch(object, patch).await
    }

    async fn release<K>(&self, object: &K) -> Result<bool, Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let patch = json!({"metadata": {
            "uid": object.uid(),
            "ownerReferences": [{"$patch": "delete", "uid": self.owner.uid}],
        }});
        self.patch(object, patch).await
    }

    /// Whether the patch took: false when the object is gone, or is another one under that name.
    async fn patch<K>(&self, object: &K, patch: serde_json::Value) -> Result<bool, Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.namespace);
        match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
