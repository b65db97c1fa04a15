//! One migration a resource runs at a time, the oldest first; its CustomResourceDefinition says so.
//!
//! Answers to upstream's migration-runner-controller. When a migration has succeeded and the definition has not changed
//! meanwhile, nothing is stored in the other versions any more: they leave `status.storedVersions`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

use super::{RUNNING, SUCCEEDED, Stages, group_resource, is, is_terminal, set_once};
use crate::context::now;
use crate::error::{Error, is_conflict, unless_gone};

/// The field manager of the definitions' status.
const MANAGER: &str = "migration-runner-controller";
/// The definitions' condition.
const MIGRATING: &str = "StorageMigrating";
/// Conflicts with other writers of a definition that are sat out at once.
const CONFLICT_RETRIES: usize = 5;

pub(super) async fn sync(stages: &Stages, resource: &(String, String)) -> Result<Option<Duration>, Error> {
    let mut all: Vec<Arc<StorageVersionMigration>> = stages.migrations.list();
    all.retain(|migration| group_resource(migration) == *resource);
    all.sort_by_key(|m| (m.metadata.creation_timestamp.as_ref().map(|t| t.0), m.name_any()));
    let (running, waiting): (Vec<_>, Vec<_>) = all.into_iter().partition(|migration| is(migration, RUNNING));
    let (ended, going): (Vec<_>, Vec<_>) = running.into_iter().partition(|migration| is_terminal(migration));
    for migration in ended {
        finish(stages, resource, Arc::unwrap_or_clone(migration)).await?;
    }
    if going.is_empty()
        && let Some(next) = waiting.into_iter().find(|migration| !is_terminal(migration))
    {
        start(stages, resource, Arc::unwrap_or_clone(next)).await?;
    }
    Ok(None)
}

async fn start(
    stages: &Stages,
    resource: &(String, String),
    mut migration: StorageVersionMigration,
) -> Result<(), Error> {
    let message = format!("Migration {} is running", migration.name_any());
    mark(stages, resource, |definition| Mark {
        status: "True",
        reason: "MigrationRunning",
        message: message.clone(),
        stored: definition.stored(),
    })
    .await?;
    set_once(&mut migration, RUNNING, "MigrationRunning", "The migration is running");
    stages.update_status(&migration).await
}

async fn finish(
    stages: &Stages,
    resource: &(String, String),
    mut migration: StorageVersionMigration,
) -> Result<(), Error> {
    let succeeded = is(&migration, SUCCEEDED);
    mark(stages, resource, |definition| {
        let unchanged = definition.is_as_marked();
        let (reason, message) = match (succeeded, unchanged) {
            (true, true) => {
                ("MigrationSucceeded", "The migration has succeeded and the stored versions have been updated")
            }
            (true, false) => (
                "MigrationSucceeded",
                "The migration has succeeded but the stored versions have not been updated due to a generation mismatch",
            ),
            (false, _) => ("MigrationFailed", "The migration has failed"),
        };
        // A failed migration has left objects in any version.
        let stored = if succeeded && unchanged { definition.storage_version() } else { definition.stored() };
        Mark { status: "False", reason, message: message.to_owned(), stored }
    })
    .await?;
    let generation = migration.metadata.generation;
    let conditions = migration.status.get_or_insert_default().conditions.get_or_insert_default();
    for condition in conditions.iter_mut().filter(|condition| condition.type_ == RUNNING) {
        condition.status = "False".to_owned();
        condition.reason = "MigrationCompleted".to_owned();
        condition.message = "Migration completed".to_owned();
        condition.last_transition_time = now();
        condition.observed_generation = generation;
    }
    stages.update_status(&migration).await
}

/// What a definition's status comes to say.
struct Mark {
    status: &'static str,
    reason: &'static str,
    message: String,
    stored: Value,
}

struct Definition(DynamicObject);

impl Definition {
    fn generation(&self) -> Option<i64> {
        self.0.metadata.generation
    }

    /// `status.storedVersions`. They are applied even where they do not change: what an applier leaves out it gives
    /// up, and an earlier migration may have made them this manager's.
    fn stored(&self) -> Value {
        self.0.data["status"]["storedVersions"].clone()
    }

    /// The version that is stored now, alone.
    fn storage_version(&self) -> Value {
        let versions = self.0.data["spec"]["versions"].as_array();
        let storage = versions.into_iter().flatten().find(|version| version["storage"] == true);
        storage.map_or_else(|| self.stored(), |version| json!([version["name"]]))
    }

    /// Whether its spec is still the one of which the migration began.
    fn is_as_marked(&self) -> bool {
        let conditions = self.0.data["status"]["conditions"].as_array();
        let marked = conditions.into_iter().flatten().find(|condition| condition["type"] == MIGRATING);
        marked.is_some_and(|condition| condition["observedGeneration"].as_i64() == self.generation())
    }
}

/// Marks the definition of a custom resource; nothing is done where there is none.
async fn mark(stages: &Stages, resource: &(String, String), mark: impl Fn(&Definition) -> Mark) -> Result<(), Error> {
    let (group, plural) = resource;
    let name = format!("{plural}.{group}");
    let api_version = "apiextensions.k8s.io/v1";
    let definitions = ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: api_version.to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    };
    let api = Api::<DynamicObject>::all_with(stages.client.clone(), &definitions);
    let mut attempt = 1;
    loop {
        let Some(found) = unless_gone(api.get(&name).await)? else { return Ok(()) };
        let definition = Definition(found);
        let Mark { status, reason, message, stored } = mark(&definition);
        let applied = json!({
            "apiVersion": api_version,
            "kind": definitions.kind,
            // What is said of the stored versions holds for this state alone.
            "metadata": { "name": name, "resourceVersion": definition.0.resource_version() },
            "status": {
                "storedVersions": stored,
                "conditions": [{
                    "type": MIGRATING, "status": status, "reason": reason, "message": message,
                    "lastTransitionTime": now(), "observedGeneration": definition.generation(),
                }],
            },
        });
        let parameters = PatchParams::apply(MANAGER).force();
        match api.patch_status(&name, &parameters, &Patch::Apply(applied)).await {
            Ok(_) => return Ok(()),
            Err(error) if is_conflict(&error) && attempt < CONFLICT_RETRIES => attempt += 1,
            Err(error) => return Err(error.into()),
        }
    }
}
