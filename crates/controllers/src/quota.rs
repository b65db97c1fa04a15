//! ResourceQuotas: what the objects of a namespace use, as the quota's status tells it. Whether a new object still fits is
//! admission's to say.
//!
//! Answers to upstream's resourcequota controller and `pkg/quota/v1`. Here: what is watched, and the status. `usage` says
//! what one object counts as, `ledger` what the status may be lowered by: an API server that shares its store with others
//! raises `status.used` before it writes an object, so a plain count would undo what is on its way.

mod ledger;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{Delta, Informer, WorkQueue, run_workers};
use ironkeel_semantics::resources::{ResourceList, add, amounts, quantities};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, Secret, Service,
};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DynamicObject, PartialObjectMeta, PostParams};
use kube::core::ApiResource;
use kube::{Client, Resource};
use parking_lot::Mutex;

use crate::context::{Context, key_of, split};
use crate::discovery::discover;
use crate::error::{Error, is_conflict, unless_gone};
use ledger::Ledger;

/// Changes of objects are gathered for this long before they are counted.
const GATHER: Duration = Duration::from_millis(20);
/// How often every quota is counted anew, whatever happens.
const RESYNC: Duration = Duration::from_secs(5 * 60);
/// How soon a quota is counted anew of which something cannot be counted now.
const UNCOUNTED_RETRY: Duration = Duration::from_secs(30);
/// How long the first list of a resource may take before the rest is told without it.
const FIRST_LIST_PATIENCE: Duration = Duration::from_secs(10);

type Metadata = Informer<PartialObjectMeta<DynamicObject>>;

pub(crate) async fn run(context: Context) {
    let queue: WorkQueue<String> = WorkQueue::new();
    let controller = Arc::new(Controller {
        quotas: context.factory.informer::<ResourceQuota>(),
        pods: context.pods(),
        services: context.factory.informer::<Service>(),
        claims: context.factory.informer::<PersistentVolumeClaim>(),
        counted: Mutex::default(),
        device_claims: Mutex::default(),
        ledger: Arc::default(),
        client: context.client("resourcequota-controller"),
        context: context.clone(),
        queue: queue.clone(),
    });
    let own = queue.clone();
    context.feed(&controller.quotas, move |delta| {
        if let Some(quota) = delta.object() {
            own.add(key_of(quota.as_ref()));
        }
    });
    controller.watch(&controller.pods, |quota, pod| match usage::in_scope(quota, pod) {
        true => usage::of_pod(pod),
        false => ResourceList::new(),
    });
    controller.watch(&controller.services, |quota, service| match usage::is_scoped(quota) {
        false => usage::of_service(service),
        true => ResourceList::new(),
    });
    controller.watch(&controller.claims, |quota, claim| match usage::sees_claim(quota, claim) {
        true => usage::of_claim(claim),
        false => ResourceList::new(),
    });
    controller.quotas.synced().await;
    controller.pods.synced().await;
    controller.services.synced().await;
    controller.claims.synced().await;
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |key: String| {
        let controller = controller.clone();
        async move {
            match controller.sync(&key).await {
                Err(Error::Api(error)) if is_conflict(&error) => Ok(Some(Duration::from_millis(5))),
                other => other,
            }
        }
    })
    .await;
}

struct Controller {
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
    /// Resources of which only the number counts, by `plural.group`.
    counted: Mutex<HashMap<String, Metadata>>,
    /// Watched once a quota limits devices.
    device_claims: Mutex<Option<Informer<ResourceClaim>>>,
    ledger: Arc<Ledger>,
    client: Client,
    context: Context,
    queue: WorkQueue<String>,
}

impl Controller {
    /// Counts the quotas of a namespace anew when an object of it comes, changes or goes; `usage` is what it counts as.
    fn watch<K: Resource + Send + Sync + 'static>(
        &self,
        informer: &Informer<K>,
        usage: impl Fn(&ResourceQuota, &K) -> ResourceList + Send + 'static,
    ) {
        let (queue, quotas, ledger) = (self.queue.clone(), self.quotas.clone(), self.ledger.clone());
        self.context.feed(informer, move |delta: Delta<K>| {
            let Some(object) = delta.object() else { return };
            for quota in quotas.list_namespace(object.meta().namespace.as_deref().unwrap_or_default()) {
                let key = key_of(quota.as_ref());
                match &delta {
                    Delta::Deleted(gone) => ledger.freed(&key, &usage(&quota, gone), &ResourceList::new()),
                    Delta::Updated { old, new } => ledger.freed(&key, &usage(&quota, old), &usage(&quota, new)),
                    Delta::Added(_) | Delta::Synced => {}
                }
                queue.add_after(key, GATHER);
            }
        });
    }

    async fn sync(&self, key: &str) -> Result<Option<Duration>, Error> {
        let (namespace, name) = split(key);
        let Some(quota) = self.quotas.get(namespace, name) else {
            self.ledger.forget(key);
            return Ok(None);
        };
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
        let before = quota.status.clone().unwrap_or_default();
        let freed = self.ledger.take(key);
        // What is freed from here on is counted, and taken off in the next turn: that lowers nothing below the count.
        let told = amounts(before.used.as_ref());
        let Counted { amounts: counted, complete } = match self.used(namespace, &quota, &hard, &told).await {
            Ok(counted) => counted,
            Err(error) => {
                self.ledger.freed(key, &freed, &ResourceList::new());
                return Err(error);
            }
        };
        let (used, settled) = self.ledger.settle(key, &told, &freed, counted);
        let used = quantities(&used);
        if before.hard.as_ref().unwrap_or(&BTreeMap::new()) != &hard
            || before.used.as_ref().unwrap_or(&BTreeMap::new()) != &used
        {
            let mut changed = quota.as_ref().clone();
            let status = changed.status.get_or_insert_default();
            (status.hard, status.used) = (Some(hard), Some(used));
            let api = Api::<ResourceQuota>::namespaced(self.client.clone(), namespace);
            if let Err(error) = unless_gone(api.replace_status(name, &PostParams::default(), &changed).await) {
                self.ledger.freed(key, &freed, &ResourceList::new());
                return Err(error.into());
            }
        }
        Ok(Some(match (settled, complete) {
            (false, _) => ledger::LINGER,
            (true, false) => UNCOUNTED_RETRY,
            (true, true) => RESYNC,
        }))
    }

    /// What is used of each of `hard`; `told` of what cannot be counted now.
    async fn used(
        &self,
        namespace: &str,
        quota: &ResourceQuota,
        hard: &BTreeMap<String, Quantity>,
        told: &ResourceList,
    ) -> Result<Counted, Error> {
        let mut total = ResourceList::new();
        let mut uncounted = Vec::new();
        for pod in self.pods.list_namespace(namespace) {
            if usage::in_scope(quota, &pod) {
                add(&mut total, &usage::of_pod(&pod));
            }
        }
        for claim in self.claims.list_namespace(namespace) {
            if usage::sees_claim(quota, &claim) {
                add(&mut total, &usage::of_claim(&claim));
            }
        }
        if !usage::is_scoped(quota) {
            for service in self.services.list_namespace(namespace) {
                add(&mut total, &usage::of_service(&service));
            }
            if hard.keys().any(|name| usage::is_of_devices(name)) {
                let claims = self.device_claims();
                match self.listed(&claims).await {
                    true => {
                        for claim in claims.list_namespace(namespace) {
                            add(&mut total, &usage::of_device_claim(&claim));
                        }
                    }
                    false => uncounted.extend(hard.keys().filter(|name| usage::is_of_devices(name))),
                }
            }
            for name in hard.keys().filter(|name| !usage::is_of_devices(name)) {
                if total.contains_key(name) {
                    continue;
                }
                match self.metadata(name).await? {
                    Source::Listed(informer) if self.listed(&informer).await => {
                        total.insert(name.clone(), usage::number(informer.list_namespace(namespace).len()));
                    }
                    Source::Listed(_) | Source::Unreachable => uncounted.push(name),
                    Source::Nothing => {}
                }
            }
        }
        let used = hard.keys().filter_map(|name| match uncounted.contains(&name) {
            // Nothing is said of what nobody has counted yet.
            true => Some((name.clone(), *told.get(name)?)),
            false => Some((name.clone(), total.get(name).copied().unwrap_or_default())),
        });
        Ok(Counted { amounts: used.collect(), complete: uncounted.is_empty() })
    }

    /// Whether the first list is there, soon. An informer that is stopped never has it.
    async fn listed<K: Resource>(&self, informer: &Informer<K>) -> bool {
        let listed = tokio::time::timeout(FIRST_LIST_PATIENCE, informer.synced());
        matches!(self.context.shutdown.run_until_cancelled(listed).await, Some(Ok(())))
    }

    /// Claims of devices, and counts quotas anew as they change.
    fn device_claims(&self) -> Informer<ResourceClaim> {
        let mut known = self.device_claims.lock();
        if let Some(known) = &*known {
            return known.clone();
        }
        let claims = known.insert(self.context.factory.informer::<ResourceClaim>()).clone();
        self.watch(&claims, |quota, claim| match usage::is_scoped(quota) {
            false => usage::of_device_claim(claim),
            true => ResourceList::new(),
        });
        claims
    }

    /// The objects that the quota resource `name` counts.
    async fn metadata(&self, name: &str) -> Result<Source, Error> {
        let core = match name {
            "configmaps" => Some(ApiResource::erase::<ConfigMap>(&())),
            "secrets" => Some(ApiResource::erase::<Secret>(&())),
            "replicationcontrollers" => Some(ApiResource::erase::<ReplicationController>(&())),
            "resourcequotas" => Some(ApiResource::erase::<ResourceQuota>(&())),
            _ => None,
        };
        let counted = name.strip_prefix("count/");
        let resource_name = counted.unwrap_or(name);
        if core.is_none() && counted.is_none() {
            return Ok(Source::Nothing);
        }
        if let Some(known) = self.counted.lock().get(resource_name) {
            return Ok(Source::Listed(known.clone()));
        }
        let resource = match core {
            Some(resource) => resource,
            None => {
                let (plural, group) = resource_name.split_once('.').unwrap_or((resource_name, ""));
                let all = discover(self.context.factory.client()).await?;
                let found = all.resources.into_iter().find(|served| {
                    served.preferred
                        && served.namespaced
                        && served.can("watch")
                        && served.resource.plural == plural
                        && served.resource.group == group
                });
                match found {
                    Some(found) => found.resource,
                    // Of its objects nothing is known, not that there are none.
                    None if all.failures.iter().any(|failure| failure.group == group) => {
                        return Ok(Source::Unreachable);
                    }
                    None => return Ok(Source::Nothing),
                }
            }
        };
        let informer = self.context.factory.metadata(&resource);
        if self.counted.lock().insert(resource_name.to_owned(), informer.clone()).is_none() {
            let names = [resource_name.to_owned(), format!("count/{resource_name}")];
            self.watch(&informer, move |quota, _| match usage::is_scoped(quota) {
                false => names.iter().map(|name| (name.clone(), usage::number(1))).collect(),
                true => ResourceList::new(),
            });
        }
        Ok(Source::Listed(informer))
    }
}

/// What was counted of a quota.
struct Counted {
    amounts: ResourceList,
    /// Whether all of it could be counted.
    complete: bool,
}

/// Where the objects are of which a quota limits the number.
enum Source {
    Listed(Metadata),
    /// Their API server does not say what it serves.
    Unreachable,
    /// The name is no count, or of nothing that is served.
    Nothing,
}
