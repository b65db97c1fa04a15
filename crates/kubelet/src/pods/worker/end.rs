//! A pod that is to end: its containers first, then what it held on the node, then its logs.

use std::time::Duration;

use crate::{Error, names, pods::kill, runtime::PodView};

use super::{Stage, Wish, Worker};

impl Worker {
    pub(super) async fn terminate(&mut self, wish: &Wish) -> Result<(), Error> {
        for (_, task) in self.starting.drain() {
            task.abort();
            // The start is over only when its task is.
            let _ = task.await;
        }
        for (_, task) in self.killing.drain() {
            task.abort();
        }
        let kubelet = self.kubelet.clone();
        let uid = names::uid(&wish.pod).to_owned();
        let view = kubelet.runtime.pod(&uid).await?;
        let ips = kubelet.pod_ips(&uid);
        self.reconcile_probes(&wish.pod, &view, &ips, true);
        self.publish(wish, &view, &ips, false);
        let pod = wish.pod.clone();
        let kill = |view: PodView, grace: Duration| {
            let (kubelet, pod) = (kubelet.clone(), pod.clone());
            Box::pin(async move { kill::pod(&kubelet, Some(&pod), &view, grace).await })
        };
        let mut grace = wish.grace();
        let mut killing = kill(view, grace);
        loop {
            tokio::select! {
                result = &mut killing => {
                    result?;
                    break;
                }
                // The next kubelet goes on.
                () = kubelet.shutdown.cancelled() => return Ok(()),
                () = self.handle.wake.notified() => {
                    let now = self.handle.wish.lock().clone();
                    if now.grace() < grace {
                        // The user lost patience: stop again, sooner. Stops of a container are idempotent.
                        grace = now.grace();
                        killing = kill(kubelet.runtime.pod(&uid).await?, grace);
                        continue;
                    }
                    let view = kubelet.runtime.pod(&uid).await?;
                    self.reconcile_probes(&pod, &view, &ips, true);
                    self.publish(&now, &view, &ips, false);
                }
            }
        }
        let view = kubelet.runtime.pod(&uid).await?;
        self.probes.reconcile(&[], true);
        self.stage = Stage::Terminated;
        self.publish(wish, &view, &ips, false);
        Ok(())
    }

    pub(super) async fn give_back(&mut self, wish: &Wish) -> Result<(), Error> {
        let uid = names::uid(&wish.pod);
        self.kubelet.volumes.tear_down(uid)?;
        self.kubelet.cgroups.remove_pod(uid);
        self.kubelet.volumes.objects.unregister(uid);
        self.kubelet.images.forget(uid);
        self.stage = Stage::Finished;
        let view = self.kubelet.runtime.pod(uid).await?;
        let ips = self.kubelet.pod_ips(uid);
        self.publish(wish, &view, &ips, true);
        self.kubelet.pods_changed();
        self.kubelet.wake_waiting(uid);
        Ok(())
    }

    pub(super) async fn finish(&mut self, wish: &Wish) -> Result<bool, Error> {
        let uid = names::uid(&wish.pod);
        let view = self.kubelet.runtime.pod(uid).await?;
        if !wish.gone {
            let ips = self.kubelet.pod_ips(uid);
            self.publish(wish, &view, &ips, true);
            return Ok(false);
        }
        for container in &view.containers {
            self.kubelet.runtime.remove_container(&container.id).await?;
        }
        for sandbox in &view.sandboxes {
            self.kubelet.runtime.remove_sandbox(&sandbox.id).await?;
        }
        self.kubelet.volumes.remove_directory(uid)?;
        let logs = self.kubelet.paths.pod_logs(&wish.pod);
        if let Err(error) = std::fs::remove_dir_all(&logs)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(path = %logs.display(), %error, "logs not removed");
        }
        self.kubelet.forget(uid);
        Ok(true)
    }
}
