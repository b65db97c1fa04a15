//! The resourceVersion at which a migration begins: what was written later is stored as it should be.
//!
//! Answers to upstream's resource-version-controller, which also refuses what cannot be migrated.

use std::time::Duration;

use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use kube::api::{Api, DynamicObject, ListParams};

use super::{RUNNING, Stages, checkpoint_of, group_resource, is, is_terminal, malformed, number};
use crate::error::Error;

/// What must be possible with a resource.
const VERBS: [&str; 3] = ["update", "patch", "list"];

pub(super) async fn sync(stages: &Stages, name: &str) -> Result<Option<Duration>, Error> {
    let Some(found) = stages.migrations.get("", name) else { return Ok(None) };
    if !is(&found, RUNNING) || is_terminal(&found) || !checkpoint_of(&found).is_empty() {
        return Ok(None);
    }
    let mut migration = StorageVersionMigration::clone(&found);
    let (group, plural) = group_resource(&migration);
    let Some(target) = stages.resource(&group, &plural).await? else {
        if let Some(later) = stages.patience(&migration) {
            return Ok(Some(later));
        }
        stages.fail(migration, "resource does not exist in discovery").await?;
        return Ok(None);
    };
    if !VERBS.iter().all(|verb| target.verbs.iter().any(|known| known == verb)) {
        let (shown, verbs) = (target.shown(), VERBS.join(" "));
        let why = format!("resource {shown:?} does not support discovery operations: [{verbs}]");
        stages.fail(migration, &why).await?;
        return Ok(None);
    }
    // One object is enough: the list says what the time is.
    let api = Api::<DynamicObject>::all_with(stages.client.clone(), &target.resource);
    let list = api.list_metadata(&ListParams::default().limit(1)).await?;
    let latest = list.metadata.resource_version.unwrap_or_default();
    if number(&latest).is_none() {
        let why = format!("latest resourceVersion for {} is not valid: {}", target.shown(), malformed(&latest));
        stages.fail(migration, &why).await?;
        return Ok(None);
    }
    migration.status.get_or_insert_default().resource_version = Some(latest);
    stages.update_status(&migration).await?;
    Ok(None)
}
