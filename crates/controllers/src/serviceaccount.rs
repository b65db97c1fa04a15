//! The ServiceAccount `default` in every active namespace.

use ironkeel_informer::{Delta, WorkQueue, run_workers};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};

use crate::context::Context;
use crate::error::{Error, already_exists, is_not_found, namespace_terminating};

const NAME: &str = "default";

pub(crate) async fn run(context: Context) {
    let namespaces = context.factory.informer::<Namespace>();
    let accounts = context.factory.informer::<ServiceAccount>();
    let client = context.client("service-account-controller");
    let queue: WorkQueue<String> = WorkQueue::new();
    let (by_namespace, by_account) = (queue.clone(), queue.clone());
    context.feed(&namespaces, move |delta| match delta {
        Delta::Added(namespace) | Delta::Updated { new: namespace, .. } => {
            by_namespace.add(namespace.metadata.name.clone().unwrap_or_default());
        }
        Delta::Deleted(_) | Delta::Synced => {}
    });
    context.feed(&accounts, move |delta| {
        if let Delta::Deleted(account) = delta
            && account.metadata.name.as_deref() == Some(NAME)
        {
            by_account.add(account.metadata.namespace.clone().unwrap_or_default());
        }
    });
    namespaces.synced().await;
    accounts.synced().await;
    run_workers(queue, 1, context.shutdown.clone(), move |name: String| {
        let (namespaces, accounts, client) = (namespaces.clone(), accounts.clone(), client.clone());
        async move {
            let active = namespaces.get("", &name).is_some_and(|namespace| is_active(&namespace));
            if !active || accounts.get(&name, NAME).is_some() {
                return Ok(None);
            }
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let account = ServiceAccount { metadata, ..ServiceAccount::default() };
            match Api::namespaced(client, &name).create(&PostParams::default(), &account).await {
                Err(error) if !already_exists(&error) && !namespace_terminating(&error) && !is_not_found(&error) => {
                    Err(Error::from(error))
                }
                _ => Ok(None),
            }
        }
    })
    .await;
}

/// Whether the namespace takes new objects.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
}
