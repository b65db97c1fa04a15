//! What happened to containers: the runtime's event stream, or, for runtimes without one, a look at everything every
//! second. Either only names the pods to wake.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{Error, kubelet::Kubelet, names};

/// How often a runtime without events is looked at.
const RELIST_WITHOUT_EVENTS: Duration = Duration::from_secs(1);
/// How often a runtime with events is looked at, in case one was lost.
const RELIST_WITH_EVENTS: Duration = Duration::from_secs(300);

/// Wakes pods' workers until shutdown.
pub(crate) async fn run(kubelet: Arc<Kubelet>) {
    let mut states = HashMap::new();
    while !kubelet.shutdown.is_cancelled() {
        let wait = match kubelet.runtime.events().await {
            Ok(mut stream) => {
                // What happened before the stream began.
                relist(&kubelet, &mut states).await;
                loop {
                    tokio::select! {
                        () = kubelet.shutdown.cancelled() => return,
                        () = tokio::time::sleep(RELIST_WITH_EVENTS) => relist(&kubelet, &mut states).await,
                        event = stream.message() => match event {
                            Ok(Some(event)) => wake(&kubelet, event),
                            Ok(None) | Err(_) => break,
                        },
                    }
                }
                RELIST_WITHOUT_EVENTS
            }
            Err(Error::Cri { code: tonic::Code::Unimplemented, .. }) => {
                relist(&kubelet, &mut states).await;
                RELIST_WITHOUT_EVENTS
            }
            Err(error) => {
                tracing::debug!(%error, "no events from the runtime");
                relist(&kubelet, &mut states).await;
                RELIST_WITHOUT_EVENTS
            }
        };
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn wake(kubelet: &Kubelet, event: ironkeel_cri::v1::ContainerEventResponse) {
    let uid = event.pod_sandbox_status.and_then(|status| status.metadata).map(|metadata| metadata.uid);
    let labels = || event.containers_statuses.first().and_then(|status| status.labels.get(names::POD_UID).cloned());
    match uid.or_else(labels) {
        Some(uid) => kubelet.wake(&uid),
        None => kubelet.wake_all(),
    }
}

async fn relist(kubelet: &Kubelet, states: &mut HashMap<String, (i32, String)>) {
    let listed = tokio::try_join!(kubelet.runtime.sandboxes(None), kubelet.runtime.containers(None));
    let (sandboxes, containers) = match listed {
        Ok(listed) => listed,
        Err(error) => {
            tracing::debug!(%error, "the runtime cannot be listed");
            return;
        }
    };
    let uid = |labels: &HashMap<String, String>| labels.get(names::POD_UID).cloned().unwrap_or_default();
    let mut now: HashMap<String, (i32, String)> = HashMap::new();
    now.extend(sandboxes.iter().map(|sandbox| (sandbox.id.clone(), (sandbox.state, uid(&sandbox.labels)))));
    now.extend(containers.iter().map(|container| (container.id.clone(), (container.state, uid(&container.labels)))));
    let changed = now.iter().filter(|(id, state)| states.get(*id) != Some(state));
    let gone = states.iter().filter(|(id, _)| !now.contains_key(*id));
    for (_, (_, uid)) in changed.chain(gone) {
        kubelet.wake(uid);
    }
    *states = now;
}
