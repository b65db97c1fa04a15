//! The ConfigMap `kube-root-ca.crt` in every active namespace: the authority that pods trust the API server by.

use std::collections::BTreeMap;

use ironkeel_informer::{Delta, WatchConfig, WorkQueue, run_workers};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ObjectMeta, PostParams};

use crate::context::Context;
use crate::error::{Error, already_exists, is_not_found, namespace_terminating};
use crate::serviceaccount::is_active;

const NAME: &str = "kube-root-ca.crt";
const DATA_KEY: &str = "ca.crt";
const DESCRIPTION_ANNOTATION: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                           endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                           guaranteed across distributions of Kubernetes clusters.";

pub(crate) async fn run(context: Context) {
    let Some(root_ca) = context.config.root_ca.clone() else {
        return context.shutdown.cancelled().await;
    };
    let namespaces = context.factory.informer::<Namespace>();
    let only = WatchConfig { field_selector: Some(format!("metadata.name={NAME}")), ..WatchConfig::default() };
    let published = context.factory.informer_with::<ConfigMap>(only);
    let client = context.client("root-ca-cert-publisher");
    let queue: WorkQueue<String> = WorkQueue::new();
    let (by_namespace, by_map) = (queue.clone(), queue.clone());
    context.feed(&namespaces, move |delta| {
        if let Delta::Added(namespace) | Delta::Updated { new: namespace, .. } = delta {
            by_namespace.add(namespace.metadata.name.clone().unwrap_or_default());
        }
    });
    context.feed(&published, move |delta| {
        if let Delta::Updated { new: map, .. } | Delta::Deleted(map) = delta {
            by_map.add(map.metadata.namespace.clone().unwrap_or_default());
        }
    });
    namespaces.synced().await;
    published.synced().await;
    let data = BTreeMap::from([(DATA_KEY.to_owned(), root_ca)]);
    run_workers(queue, 1, context.shutdown.clone(), move |name: String| {
        let (namespaces, published, client, data) =
            (namespaces.clone(), published.clone(), client.clone(), data.clone());
        async move {
            if !namespaces.get("", &name).is_some_and(|namespace| is_active(&namespace)) {
                return Ok(None);
            }
            let api = Api::<ConfigMap>::namespaced(client, &name);
            let outcome = match published.get(&name, NAME) {
                Some(found) if found.data.as_ref() == Some(&data) => return Ok(None),
                Some(found) => {
                    let mut changed = found.as_ref().clone();
                    changed.data = Some(data);
                    api.replace(NAME, &PostParams::default(), &changed).await
                }
                None => {
                    let annotations = BTreeMap::from([(DESCRIPTION_ANNOTATION.to_owned(), DESCRIPTION.to_owned())]);
                    let metadata = ObjectMeta {
                        name: Some(NAME.to_owned()),
                        annotations: Some(annotations),
                        ..ObjectMeta::default()
                    };
                    let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
                    api.create(&PostParams::default(), &map).await
                }
            };
            match outcome {
                Err(error) if !already_exists(&error) && !namespace_terminating(&error) && !is_not_found(&error) => {
                    Err(Error::from(error))
                }
                _ => Ok(None),
            }
        }
    })
    .await;
}
