//! StorageVersionMigrations: every object of a resource is written again, so that all are stored as they would be now.
//!
//! Answers to upstream's storage-version-migrator-controller. Three stages follow each other through the status: one
//! migration a resource comes to run (`activation`), the resourceVersion is noted up to which objects are of before
//! (`checkpoint`), and those are written (`migrate`). Here: the queues, and what the stages share.

mod activation;
mod checkpoint;
mod migrate;

use std::time::Duration;

use ironkeel_informer::{Informer, WorkQueue, run_workers};
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, Condition};
use kube::api::{Api, PostParams};
use kube::core::ApiResource;
use kube::{Client, ResourceExt as _};

use crate::context::{Context, now, since};
use crate::error::{Error, is_not_found};

/// The identity, and the field manager of what is written.
const CONTROLLER: &str = "storage-version-migrator-controller";
/// Migrations that are worked on at once.
const WORKERS: usize = 5;
/// How often a resource is looked for that is not served yet.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const RUNNING: &str = "Running";
const SUCCEEDED: &str = "Succeeded";
const FAILED: &str = "Failed";
const FAILED_REASON: &str = "StorageVersionMigrationFailed";

/// How storage versions are migrated.
#[derive(Clone, Debug)]
pub struct StorageVersionMigrator {
    /// A migration of a resource that is not served fails so long after it was created: until then its definition may
    /// come.
    pub discovery_patience: Duration,
}

impl Default for StorageVersionMigrator {
    /// Upstream's.
    fn default() -> Self {
        Self { discovery_patience: Duration::from_secs(60) }
    }
}

pub(crate) async fn run(context: Context) {
    let Some(config) = context.config.storage_version_migrator.clone() else {
        return context.shutdown.cancelled().await;
    };
    let migrations = context.factory.informer::<StorageVersionMigration>();
    let stages = Stages { migrations: migrations.clone(), client: context.client(CONTROLLER), config };
    let by_resource: WorkQueue<(String, String)> = WorkQueue::new();
    let (checkpoints, work): (WorkQueue<String>, WorkQueue<String>) = (WorkQueue::new(), WorkQueue::new());
    let (resources, unchecked, unmigrated) = (by_resource.clone(), checkpoints.clone(), work.clone());
    context.feed(&migrations, move |delta| {
        // The next one of its resource may run when one is gone.
        let Some(migration) = delta.object() else { return };
        resources.add(group_resource(migration));
        unchecked.add(migration.name_any());
        unmigrated.add(migration.name_any());
    });
    migrations.synced().await;
    let (first, second, third) = (stages.clone(), stages.clone(), stages);
    let shutdown = || context.shutdown.clone();
    tokio::join!(
        run_workers(by_resource, 1, shutdown(), move |resource: (String, String)| {
            let stages = first.clone();
            async move { activation::sync(&stages, &resource).await }
        }),
        run_workers(checkpoints, 1, shutdown(), move |name: String| {
            let stages = second.clone();
            async move { checkpoint::sync(&stages, &name).await }
        }),
        run_workers(work, WORKERS, shutdown(), move |name: String| {
            let stages = third.clone();
            async move { migrate::sync(&stages, &name).await }
        }),
    );
}

/// What the stages work with.
#[derive(Clone)]
struct Stages {
    migrations: Informer<StorageVersionMigration>,
    client: Client,
    config: StorageVersionMigrator,
}

impl Stages {
    /// Writes the status, unless somebody was first: then we hear of that.
    async fn update_status(&self, migration: &StorageVersionMigration) -> Result<(), Error> {
        let api = Api::<StorageVersionMigration>::all(self.client.clone());
        api.replace_status(&migration.name_any(), &PostParams::default(), migration).await?;
        Ok(())
    }

    /// Ends a migration for good.
    async fn fail(&self, mut migration: StorageVersionMigration, message: &str) -> Result<(), Error> {
        tracing::info!(migration = migration.name_any(), message, "a storage version migration has failed");
        set_once(&mut migration, FAILED, FAILED_REASON, message);
        self.update_status(&migration).await
    }

    /// When to look again for a resource that is not served; none when it has been waited for long enough.
    fn patience(&self, migration: &StorageVersionMigration) -> Option<Duration> {
        let age = migration.metadata.creation_timestamp.as_ref().map(since).unwrap_or_default();
        let left = self.config.discovery_patience.checked_sub(age).filter(|left| !left.is_zero())?;
        Some(left.min(LOOK_AGAIN))
    }

    /// The version of a resource that the server prefers.
    async fn resource(&self, group: &str, plural: &str) -> Result<Option<Target>, Error> {
        let versions: Vec<String> = if group.is_empty() {
            self.client.list_core_api_versions().await?.versions
        } else {
            let groups = self.client.list_api_groups().await?.groups;
            let Some(found) = groups.into_iter().find(|found| found.name == group) else { return Ok(None) };
            let preferred = found.preferred_version.map(|preferred| preferred.version);
            let mut versions: Vec<String> = found.versions.into_iter().map(|version| version.version).collect();
            // The order is the server's but for the first.
            versions.sort_by_key(|version| Some(version) != preferred.as_ref());
            versions
        };
        for version in versions {
            let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
            let listed = if group.is_empty() {
                self.client.list_core_api_resources(&version).await
            } else {
                self.client.list_api_group_resources(&api_version).await
            };
            let resources = match listed {
                Ok(listed) => listed.resources,
                // It went in between.
                Err(error) if is_not_found(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(APIResource { kind, verbs, .. }) = resources.into_iter().find(|found| found.name == plural) {
                let (group, plural) = (group.to_owned(), plural.to_owned());
                return Ok(Some(Target { resource: ApiResource { group, version, api_version, kind, plural }, verbs }));
            }
        }
        Ok(None)
    }
}

/// A served resource.
struct Target {
    resource: ApiResource,
    verbs: Vec<String>,
}

impl Target {
    /// As upstream prints it.
    fn shown(&self) -> String {
        let ApiResource { group, version, plural, .. } = &self.resource;
        format!("{group}/{version}, Resource={plural}")
    }
}

fn group_resource(migration: &StorageVersionMigration) -> (String, String) {
    let resource = migration.spec.as_ref().map(|spec| &spec.resource);
    resource.map(|found| (found.group.clone(), found.resource.clone())).unwrap_or_default()
}

fn condition<'a>(migration: &'a StorageVersionMigration, type_: &str) -> Option<&'a Condition> {
    let conditions = migration.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().find(|condition| condition.type_ == type_)
}

fn is(migration: &StorageVersionMigration, type_: &str) -> bool {
    condition(migration, type_).is_some_and(|condition| condition.status == "True")
}

/// Whether it has come to its end.
fn is_terminal(migration: &StorageVersionMigration) -> bool {
    is(migration, SUCCEEDED) || is(migration, FAILED)
}

/// The resourceVersion up to which objects are written again; empty before it is known.
fn checkpoint_of(migration: &StorageVersionMigration) -> &str {
    migration.status.as_ref().and_then(|status| status.resource_version.as_deref()).unwrap_or_default()
}

/// Says that a condition holds. One that was said before, be it of the contrary, stays.
fn set_once(migration: &mut StorageVersionMigration, type_: &str, reason: &str, message: &str) {
    if condition(migration, type_).is_some_and(|condition| condition.status != "Unknown") {
        return;
    }
    let conditions = migration.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: now(),
        observed_generation: None,
    });
}

/// A resourceVersion as a number; none where it is not well formed.
fn number(version: &str) -> Option<u128> {
    let digits = !version.starts_with('0') && version.bytes().all(|byte| byte.is_ascii_digit());
    version.parse().ok().filter(|_| digits)
}

/// What upstream says of a resourceVersion that is none.
fn malformed(version: &str) -> String {
    format!("resource version is not well formed: {version}")
}
