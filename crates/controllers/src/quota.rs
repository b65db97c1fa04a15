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
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DynamicObject, PartialObjectMeta, PostParams};
use kube::core::ApiResource;
use kube::{Client, Resource};
use parking_lot::Mutex;

use crate::context::{Context, key_of, split};
use crate::discovery::served;
use crate::error::{Error, is_conflict, unless_gone};
use ledger::Ledger;

/// Changes of objects are gathered for this long before they are counted.
const GATHER: Duration = Duration::from_millis(20);
/// How often every quota is counted anew, whatever happens.
const RESYNC: Duration = Duration::from_secs(5 * 60);

type Metadata = Informer<PartialObjectMeta<DynamicObject>>;

pub(crate) async fn run(context: Context) {
    let queue: WorkQueue<String> = WorkQueue::new();
    let controller = Arc::new(Controller {
        quotas: context.factory.informer::<ResourceQuota>(),
        pods: context.pods(),
        services: context.factory.informer::<Service>(),
        claims: context.factory.informer::<PersistentVolumeClaim>(),
        counted: Mutex::default(),
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
        let counted = match self.used(namespace, &quota, &hard).await {
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
        Ok(Some(if settled { RESYNC } else { ledger::LINGER }))
    }

    /// What is used of each of `hard`.
    async fn used(
        &self,
        namespace: &str,
        quota: &ResourceQuota,
        hard: &BTreeMap<String, Quantity>,
    ) -> Result<ResourceList, Error> {
        let mut total = ResourceList::new();
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
            for name in hard.keys() {
                if total.contains_key(name) {
                    continue;
                }
                if let Some(informer) = self.metadata(name).await? {
                    // An informer that is stopped never has its first list.
                    let _ = self.context.shutdown.run_until_cancelled(informer.synced()).await;
                    total.insert(name.clone(), usage::number(informer.list_namespace(namespace).len()));
                }
            }
        }
        let used = hard.keys().map(|name| (name.clone(), total.get(name).copied().unwrap_or_default()));
        Ok(used.collect())
    }

    /// The objects that the quota resource `name` counts; none when it is not a count, or of nothing that is served.
    async fn metadata(&self, name: &str) -> Result<Option<Metadata>, Error> {
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
            return Ok(None);
        }
        if let Some(known) = self.counted.lock().get(resource_name) {
            return Ok(Some(known.clone()));
        }
        let resource = match core {
            Some(resource) => resource,
            None => {
                let (plural, group) = resource_name.split_once('.').unwrap_or((resource_name, ""));
                let all = served(self.context.factory.client()).await?;
                let found = all.into_iter().find(|served| {
                    served.namespaced
                        && served.can("watch")
                        && served.resource.plural == plural
                        && served.resource.group == group
                });
                let Some(found) = found else { return Ok(None) };
                found.resource
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
        Ok(Some(informer))
    }
}
