//! Writes every object of before the checkpoint again, by an apply of nothing.
//!
//! Answers to upstream's migration loop. The API server stores an object anew when its bytes are not what it would
//! write, though nothing changes. Objects are listed anew on every try: those that have been written lie behind the
//! checkpoint then.

use std::time::Duration;

use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::json;

use super::{
    CONTROLLER, SUCCEEDED, Stages, Target, checkpoint_of, group_resource, is_terminal, malformed, number, set_once,
};
use crate::error::{Error, is_conflict};

const SUCCEEDED_REASON: &str = "StorageVersionMigrationSucceeded";
/// Objects a page of the list.
const PAGE_OBJECTS: u32 = 500;

/// How far a try has come.
enum Outcome {
    Done,
    /// To be tried again, where the server says when.
    Later(Duration),
    Failed(String),
}

pub(super) async fn sync(stages: &Stages, name: &str) -> Result<Option<Duration>, Error> {
    let Some(found) = stages.migrations.get("", name) else { return Ok(None) };
    if is_terminal(&found) || checkpoint_of(&found).is_empty() {
        return Ok(None);
    }
    let mut migration = StorageVersionMigration::clone(&found);
    let (group, plural) = group_resource(&migration);
    let outcome = match stages.resource(&group, &plural).await? {
        Some(target) => write_again(stages, &target, checkpoint_of(&migration)).await?,
        None => match stages.patience(&migration) {
            Some(later) => Outcome::Later(later),
            None => Outcome::Failed("unable to obtain GVR from discovery".to_owned()),
        },
    };
    match outcome {
        Outcome::Later(later) => return Ok(Some(later)),
        Outcome::Failed(why) => {
            stages.fail(migration, &format!("migration encountered unhandled error: {why}")).await?;
        }
        Outcome::Done => {
            set_once(&mut migration, SUCCEEDED, SUCCEEDED_REASON, "");
            stages.update_status(&migration).await?;
        }
    }
    Ok(None)
}

async fn write_again(stages: &Stages, target: &Target, checkpoint: &str) -> Result<Outcome, Error> {
    let Some(until) = number(checkpoint) else { return Ok(Outcome::Failed(malformed(checkpoint))) };
    let all = Api::<DynamicObject>::all_with(stages.client.clone(), &target.resource);
    let mut page = ListParams::default().limit(PAGE_OBJECTS);
    loop {
        let list = all.list_metadata(&page).await?;
        for object in list.items {
            let version = object.metadata.resource_version.as_deref().unwrap_or_default();
            match number(version) {
                None => return Ok(Outcome::Failed(malformed(version))),
                Some(version) if version > until => continue,
                Some(_) => {}
            }
            if let Err(error) = write(stages, target, &object.metadata).await {
                // It was changed, or deleted, or is another one: all of that is of now.
                if is_conflict(&error) {
                    continue;
                }
                return refused(error);
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(Outcome::Done),
        }
    }
}

async fn write(stages: &Stages, target: &Target, meta: &ObjectMeta) -> kube::Result<()> {
    let resource = &target.resource;
    let api = match meta.namespace.as_deref() {
        Some(namespace) => Api::<DynamicObject>::namespaced_with(stages.client.clone(), namespace, resource),
        None => Api::<DynamicObject>::all_with(stages.client.clone(), resource),
    };
    // With both, what was deleted meanwhile is not made anew, and what is another one now is a conflict.
    let nothing = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version },
    });
    let name = meta.name.as_deref().unwrap_or_default();
    api.patch_metadata(name, &PatchParams::apply(CONTROLLER), &Patch::Apply(nothing)).await?;
    Ok(())
}

/// What a refusal means: what passes is tried again.
fn refused(error: kube::Error) -> Result<Outcome, Error> {
    let kube::Error::Api(status) = &error else { return Err(error.into()) };
    let passing = ["ServerTimeout", "TooManyRequests", "ServiceUnavailable", "InternalError", "Timeout"];
    // Servers before ours may say no more than the code.
    if passing.contains(&status.reason.as_str()) || matches!(status.code, 429 | 500 | 503 | 504) {
        let after = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        return match after {
            0 => Err(error.into()),
            seconds => Ok(Outcome::Later(Duration::from_secs(seconds.into()))),
        };
    }
    Ok(Outcome::Failed(status.message.clone()))
}
