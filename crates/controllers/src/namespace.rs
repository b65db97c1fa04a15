//! Namespaces that are being deleted: all their content goes, then the finalizer.
//!
//! Answers to upstream's namespaced resources deleter: every namespaced resource that discovery tells of, deleted as a
//! collection; what is left, and why, is told in the namespace's conditions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{Delta, Informer, WorkQueue, run_workers};
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::Request;
use kube::{Client, ResourceExt as _};

use crate::context::{Context, now};
use crate::discovery::{Served, discover};
use crate::error::{Error, code, is_conflict, is_not_found, unless_gone};

const NAME: &str = "namespace-controller";
/// The finalizer in `spec.finalizers` that is ours to take away.
const FINALIZER: &str = "kubernetes";
/// Objects asked for to see what is left; more are only counted as more.
const LEFT_PAGE: u32 = 500;

pub(crate) async fn run(context: Context) {
    let namespaces = context.factory.informer::<Namespace>();
    let pods = context.pods();
    let queue: WorkQueue<String> = WorkQueue::new();
    let own = queue.clone();
    context.feed(&namespaces, move |delta| {
        if let Delta::Added(namespace) | Delta::Updated { new: namespace, .. } = delta
            && namespace.metadata.deletion_timestamp.is_some()
        {
            own.add(namespace.name_any());
        }
    });
    // Pods take their grace period; nothing else makes a namespace wait for long.
    let (by_pod, known) = (queue.clone(), namespaces.clone());
    context.feed(&pods, move |delta| {
        if let Delta::Deleted(pod) = delta {
            let name = pod.namespace().unwrap_or_default();
            if known.get("", &name).is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
                by_pod.add(name);
            }
        }
    });
    namespaces.synced().await;
    let deleter = Arc::new(Deleter { namespaces, client: context.client(NAME) });
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |name: String| {
        let deleter = deleter.clone();
        async move {
            match deleter.sync(&name).await {
                Err(Error::Api(error)) if is_conflict(&error) => Ok(Some(Duration::from_millis(5))),
                other => other,
            }
        }
    })
    .await;
}

struct Deleter {
    namespaces: Informer<Namespace>,
    client: Client,
}

/// What became of the content of a namespace.
#[derive(Default)]
struct Left {
    /// Objects left, by resource.
    objects: BTreeMap<String, usize>,
    /// Objects left that wait for a finalizer, by finalizer.
    finalizers: BTreeMap<String, usize>,
    discovery: Option<String>,
    failures: Vec<String>,
}

impl Deleter {
    async fn sync(&self, name: &str) -> Result<Option<Duration>, Error> {
        let api = Api::<Namespace>::all(self.client.clone());
        if self.namespaces.get("", name).is_none() {
            return Ok(None);
        }
        let Some(mut namespace) = api.get_opt(name).await? else { return Ok(None) };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(None);
        }
        if namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating") {
            namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
            namespace = api.replace_status(name, &PostParams::default(), &namespace).await?;
        }
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(None);
        }
        let left = self.delete_content(name).await;
        let mut changed = namespace.clone();
        let conditions = changed.status.get_or_insert_default().conditions.get_or_insert_default();
        left.tell(conditions);
        if changed.status != namespace.status {
            match unless_gone(api.replace_status(name, &PostParams::default(), &changed).await)? {
                Some(written) => namespace = written,
                None => return Ok(None),
            }
        }
        let count: usize = left.objects.values().sum();
        if count > 0 || left.discovery.is_some() || !left.failures.is_empty() {
            return Err(Error::ContentLeft { namespace: name.to_owned(), left: count });
        }
        self.finalize(namespace).await?;
        Ok(None)
    }

    /// Takes our finalizer away, by which the API server deletes the namespace.
    async fn finalize(&self, mut namespace: Namespace) -> Result<(), Error> {
        let name = namespace.name_any();
        if let Some(finalizers) = namespace.spec.get_or_insert_default().finalizers.as_mut() {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let body = serde_json::to_vec(&namespace)?;
        let request = Request::new("/api/v1/namespaces")
            .replace_subresource("finalize", &name, &PostParams::default(), body)
            .map_err(kube::Error::BuildRequest)?;
        unless_gone(self.client.request::<Namespace>(request).await)?;
        Ok(())
    }

    async fn delete_content(&self, namespace: &str) -> Left {
        let mut left = Left::default();
        let all = match discover(&self.client).await {
            Ok(found) => {
                // What is known goes all the same.
                let failures: Vec<String> = found.failures.iter().map(ToString::to_string).collect();
                left.discovery = (!failures.is_empty()).then(|| failures.join(", "));
                found.resources
            }
            Err(error) => {
                left.discovery = Some(error.to_string());
                return left;
            }
        };
        let wanted = all
            .iter()
            .filter(|served| served.preferred && served.namespaced && served.can("list") && served.can("delete"));
        // Pods go first (KEP-5080): while one still runs, the policies and secrets that bound it stay.
        let (pods, others): (Vec<_>, Vec<_>) =
            wanted.partition(|served| served.resource.group.is_empty() && served.resource.plural == "pods");
        for wave in [pods, others] {
            let outcomes = wave.into_iter().map(|served| self.delete_all(served, namespace));
            for outcome in futures::future::join_all(outcomes).await {
                left.count(outcome);
            }
            if !left.objects.is_empty() || !left.failures.is_empty() {
                return left;
            }
        }
        left
    }

    /// Deletes all objects of one resource; the answer is what is left of it.
    async fn delete_all(&self, served: &Served, namespace: &str) -> kube::Result<Option<(String, Vec<String>, usize)>> {
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &served.resource);
        let page = ListParams::default().limit(LEFT_PAGE);
        let list = || async {
            match api.list_metadata(&page).await {
                Ok(list) => Ok(list.items),
                Err(error) if is_not_found(&error) || code(&error) == Some(405) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        };
        let mut items = list().await?;
        if items.is_empty() {
            return Ok(None);
        }
        let background = DeleteParams::background();
        let collection = served.can("deletecollection");
        if collection {
            match api.delete_collection(&background, &ListParams::default()).await {
                Ok(_) => {}
                Err(error) if is_not_found(&error) || code(&error) == Some(405) => {}
                Err(error) => return Err(error),
            }
        } else {
            for item in items.iter().filter(|item| item.metadata.deletion_timestamp.is_none()) {
                unless_gone(api.delete(&item.name_any(), &background).await)?;
            }
        }
        items = list().await?;
        if items.is_empty() {
            return Ok(None);
        }
        let finalizers = items.iter().flat_map(|item| item.metadata.finalizers.clone().unwrap_or_default()).collect();
        let group =
            if served.resource.group.is_empty() { String::new() } else { format!(".{}", served.resource.group) };
        Ok(Some((format!("{}{group}", served.resource.plural), finalizers, items.len())))
    }
}

impl Left {
    /// Adds what [`Deleter::delete_all`] has answered.
    fn count(&mut self, outcome: kube::Result<Option<(String, Vec<String>, usize)>>) {
        match outcome {
            Ok(None) => {}
            Ok(Some((resource, finalizers, count))) => {
                self.objects.insert(resource, count);
                for finalizer in finalizers {
                    *self.finalizers.entry(finalizer).or_default() += 1;
                }
            }
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    /// Sets the namespace's five conditions.
    fn tell(&self, conditions: &mut Vec<NamespaceCondition>) {
        let join = |counts: &BTreeMap<String, usize>, what: &str| {
            let parts: Vec<_> =
                counts.iter().map(|(name, count)| format!("{name} {what} {count} resource instances")).collect();
            parts.join(", ")
        };
        let discovery = self
            .discovery
            .as_ref()
            .map(|error| ("DiscoveryFailed", format!("Discovery failed for some groups: {error}")));
        set(
            conditions,
            "NamespaceDeletionDiscoveryFailure",
            discovery,
            ("ResourcesDiscovered", "All resources successfully discovered"),
        );
        set(
            conditions,
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        );
        let failures = (!self.failures.is_empty()).then(|| {
            let words = self.failures.join("; ");
            (
                "ContentDeletionFailed",
                format!("Failed to delete all resource types, {} remaining: {words}", self.failures.len()),
            )
        });
        let deleted = "All content successfully deleted, may be waiting on finalization";
        set(conditions, "NamespaceDeletionContentFailure", failures, ("ContentDeleted", deleted));
        let objects = (!self.objects.is_empty()).then(|| {
            let words = join(&self.objects, "has");
            ("SomeResourcesRemain", format!("Some resources are remaining: {words}"))
        });
        set(conditions, "NamespaceContentRemaining", objects, ("ContentRemoved", "All content successfully removed"));
        let finalizers = (!self.finalizers.is_empty()).then(|| {
            let words = join(&self.finalizers, "in");
            ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {words}"))
        });
        let removed = "All content-preserving finalizers finished";
        set(conditions, "NamespaceFinalizersRemaining", finalizers, ("ContentHasNoFinalizers", removed));
    }
}

fn set(conditions: &mut Vec<NamespaceCondition>, type_: &str, trouble: Option<(&str, String)>, fine: (&str, &str)) {
    let status = if trouble.is_some() { "True" } else { "False" };
    let (reason, message) = trouble.unwrap_or_else(|| (fine.0, fine.1.to_owned()));
    let known = conditions.iter().position(|condition| condition.type_ == type_);
    let since = known
        .map(|at| &conditions[at])
        .filter(|condition| condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    let condition = NamespaceCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: since.or_else(|| Some(now())),
    };
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}
