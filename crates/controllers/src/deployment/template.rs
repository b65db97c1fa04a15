//! The ReplicaSet of the current template: found by comparison, or made; revisions and copied annotations.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironkeel_informer::{controller_of, controller_reference};
use ironkeel_semantics::well_known::POD_TEMPLATE_HASH_LABEL;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt as _;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};

use super::status::{self, PROGRESSING};
use super::{Controller, DESIRED_REPLICAS, MAX_REPLICAS, Sets, rolling, size, wanted};
use crate::error::{Error, already_exists, namespace_terminating};
use crate::replicas::words;
use crate::revision::template_hash;

/// Annotation of a Deployment and its ReplicaSets: the number of the template, as `kubectl rollout history` shows it.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation of a ReplicaSet: the numbers that its template had before.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotations that a ReplicaSet does not take from its Deployment.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

pub(super) fn annotation_number(set: &ReplicaSet, name: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(name)?.parse().ok()
}

/// The revision of a ReplicaSet; 0 when it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(REVISION)).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Whether two templates are equal, but for the label that our hash adds.
fn equal_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let labels = |template: &PodTemplateSpec| {
        let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        labels.remove(POD_TEMPLATE_HASH_LABEL);
        labels
    };
    let notes = |template: &PodTemplateSpec| {
        template.metadata.as_ref().and_then(|meta| meta.annotations.clone()).unwrap_or_default()
    };
    a.spec == b.spec && labels(a) == labels(b) && notes(a) == notes(b)
}

impl Controller {
    /// Sorts claimed ReplicaSets into old ones and the one of the current template, which is made if `create` says so;
    /// brings its annotations and the Deployment's revision up to date.
    pub(super) async fn sort_out(
        &self,
        deployment: &mut Deployment,
        mut claimed: Vec<Arc<ReplicaSet>>,
        create: bool,
    ) -> Result<Sets, Error> {
        let Some(spec) = deployment.spec.clone() else { return Ok(Sets { new: None, old: claimed }) };
        claimed.sort_by(|a, b| {
            (&a.metadata.creation_timestamp, &a.metadata.name).cmp(&(&b.metadata.creation_timestamp, &b.metadata.name))
        });
        let equal = |set: &Arc<ReplicaSet>| {
            let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            template.is_some_and(|template| equal_template(template, &spec.template))
        };
        let new = claimed.iter().position(equal).map(|at| claimed.remove(at));
        let mut sets = Sets { new, old: claimed };
        let number = sets.old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1;
        match sets.new.take() {
            Some(found) => sets.new = Some(self.refresh(deployment, found, number).await?),
            None if create => sets.new = self.make(deployment, &sets, number).await?,
            None => {}
        }
        if let Some(new) = &sets.new {
            self.note_revision(deployment, revision(new)).await?;
        }
        Ok(sets)
    }

    /// Brings annotations and minReadySeconds of the current ReplicaSet up to date.
    async fn refresh(
        &self,
        deployment: &mut Deployment,
        set: Arc<ReplicaSet>,
        number: i64,
    ) -> Result<Arc<ReplicaSet>, Error> {
        let found = set.metadata.annotations.clone().unwrap_or_default();
        let mut changes = Map::new();
        for (name, value) in copied(deployment) {
            if found.get(&name) != Some(&value) {
                changes.insert(name, Value::String(value));
            }
        }
        for name in found.keys() {
            let ours = NOT_COPIED.contains(&name.as_str());
            let kept = deployment.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(name));
            if !ours && !kept {
                changes.insert(name.clone(), Value::Null);
            }
        }
        let before = revision(&set);
        if before < number {
            changes.insert(REVISION.to_owned(), Value::String(number.to_string()));
            if before > 0 {
                let history = found.get(REVISION_HISTORY).filter(|history| !history.is_empty());
                let history = history.map_or_else(|| before.to_string(), |history| format!("{history},{before}"));
                changes.insert(REVISION_HISTORY.to_owned(), Value::String(history));
            }
        }
        let min_ready = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let found_min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let set = if changes.is_empty() && min_ready == found_min_ready {
            set
        } else {
            let patch = json!({
                "metadata": {"resourceVersion": set.resource_version(), "annotations": changes},
                "spec": {"minReadySeconds": min_ready},
            });
            let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
            Arc::new(api.patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?)
        };
        if status::has_deadline(deployment) && status::condition(deployment, PROGRESSING).is_none() {
            let message = format!("Found new replica set \"{}\"", set.name_any());
            status::set_condition(
                deployment,
                status::new_condition(PROGRESSING, "True", "FoundNewReplicaSet", &message),
            );
        }
        Ok(set)
    }

    /// Makes the ReplicaSet of the current template. None while the namespace is being deleted.
    async fn make(
        &self,
        deployment: &mut Deployment,
        sets: &Sets,
        number: i64,
    ) -> Result<Option<Arc<ReplicaSet>>, Error> {
        let Some(spec) = deployment.spec.clone() else { return Ok(None) };
        let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = template_hash(&spec.template, collisions)?;
        let name = format!("{}-{hash}", deployment.name_any());
        let mut template = spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(POD_TEMPLATE_HASH_LABEL.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH_LABEL.to_owned(), hash);
        let replicas = rolling::new_set_size(deployment, sets, 0)?;
        let mut annotations = copied(deployment);
        annotations.insert(REVISION.to_owned(), number.to_string());
        annotations.insert(DESIRED_REPLICAS.to_owned(), wanted(deployment).to_string());
        let most = wanted(deployment) + rolling::max_surge(deployment)?;
        annotations.insert(MAX_REPLICAS.to_owned(), most.to_string());
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![controller_reference(deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default());
        let made = match api.create(&PostParams::default(), &set).await {
            Ok(made) => {
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.recorder.normal(deployment, "ScalingReplicaSet", message);
                }
                made
            }
            Err(error) if already_exists(&error) => {
                let found = api.get(&name).await?;
                let ours = controller_of(&found.metadata).map(|owner| &owner.uid) == deployment.metadata.uid.as_ref();
                let template = found.spec.as_ref().and_then(|spec| spec.template.as_ref());
                if ours && template.is_some_and(|template| equal_template(template, &spec.template)) {
                    return Ok(Some(Arc::new(found)));
                }
                let mut changed = deployment.clone();
                let status = changed.status.get_or_insert_default();
                status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                self.put_status(deployment, changed).await?;
                return Err(Error::NameTaken { kind: "ReplicaSet", name });
            }
            Err(error) if namespace_terminating(&error) => return Ok(None),
            Err(error) => {
                let message = format!("Failed to create new replica set \"{name}\": {}", words(&error));
                self.recorder.warning(deployment, "ReplicaSetCreateError", message.clone());
                if status::has_deadline(deployment) {
                    let mut changed = deployment.clone();
                    let condition = status::new_condition(PROGRESSING, "False", "ReplicaSetCreateError", &message);
                    status::set_condition(&mut changed, condition);
                    self.put_status(deployment, changed).await?;
                }
                return Err(error.into());
            }
        };
        if status::has_deadline(deployment) {
            let message = format!("Created new replica set \"{name}\"");
            status::set_condition(
                deployment,
                status::new_condition(PROGRESSING, "True", "NewReplicaSetCreated", &message),
            );
        }
        debug_assert_eq!(size(&made), replicas);
        Ok(Some(Arc::new(made)))
    }

    /// Writes the revision of the current ReplicaSet on the Deployment.
    async fn note_revision(&self, deployment: &mut Deployment, number: i64) -> Result<(), Error> {
        let text = number.to_string();
        let found = deployment.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
        if number == 0 || found == Some(&text) {
            return Ok(());
        }
        let api = Api::<Deployment>::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default());
        let mut changed = deployment.clone();
        changed.metadata.annotations.get_or_insert_default().insert(REVISION.to_owned(), text);
        // The bootstrap role lets this controller update Deployments, and not patch them.
        let after = api.replace(&deployment.name_any(), &PostParams::default(), &changed).await?;
        // The status may carry conditions that are not written yet.
        deployment.metadata = after.metadata;
        Ok(())
    }
}

fn copied(deployment: &Deployment) -> BTreeMap<String, String> {
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !NOT_COPIED.contains(&name.as_str()));
    annotations
}
