//! Images: pulled by policy, with the pod's secrets, a limited number at a time, with back-off; and collected when the
//! disk fills ([`gc`]).

mod credentials;
pub(crate) mod gc;
pub(crate) mod reference;

use std::{collections::HashMap, time::Instant};

use ironkeel_cri::v1 as cri;
use ironkeel_informer::{EventKind, EventRecorder};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Secret};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{
    names,
    objects::Objects,
    pods::{
        backoff::BackOff,
        reason::{self, Waiting},
    },
    runtime::Runtime,
};

#[derive(Clone)]
struct Failure {
    at: Timestamp,
    message: String,
    backoff: BackOff,
}

/// Makes sure that images are there before containers are made.
pub(crate) struct Images {
    runtime: Runtime,
    events: EventRecorder,
    permits: Semaphore,
    failures: Mutex<HashMap<(String, String), Failure>>,
}

/// An image that is present.
pub(crate) struct Present {
    /// What the runtime is to run.
    pub(crate) spec: cri::ImageSpec,
    /// What the runtime says about it.
    pub(crate) image: cri::Image,
}

impl Images {
    pub(crate) fn new(runtime: Runtime, events: EventRecorder, parallel: usize) -> Self {
        Self { runtime, events, permits: Semaphore::new(parallel.max(1)), failures: Mutex::default() }
    }

    /// Makes sure that the container's image is present, or says why the container must wait.
    pub(crate) async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        about: &ObjectReference,
        objects: &Objects,
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<Present, Waiting> {
        let name = container.image.as_deref().unwrap_or_default();
        let event = |kind, reason: &str, message: String| self.events.event(about.clone(), kind, reason, message);
        let full = match reference::with_default_tag(name) {
            Ok(full) => full,
            Err(why) => {
                let message = format!("couldn't parse image name \"{name}\": {why}");
                let text = format!("Failed to apply default image tag \"{name}\": {message}");
                event(EventKind::Warning, "InspectFailed", text.clone());
                return Err(Waiting::new(reason::INVALID_IMAGE_NAME, text));
            }
        };
        let spec = cri::ImageSpec {
            image: full,
            user_specified_image: name.to_owned(),
            runtime_handler: String::new(),
            ..Default::default()
        };
        let policy = reference::pull_policy(container.image_pull_policy.as_deref(), name);
        let present = self.runtime.image(spec.clone()).await.map_err(|error| {
            let message = format!("Failed to inspect image \"{name}\": {error}");
            event(EventKind::Warning, "InspectFailed", message.clone());
            Waiting::new(reason::IMAGE_INSPECT_ERROR, message)
        })?;
        match (policy, present) {
            ("Never", None) => {
                let message = format!("Container image \"{name}\" is not present with pull policy of Never");
                event(EventKind::Warning, reason::ERR_IMAGE_NEVER_PULL, message.clone());
                return Err(Waiting::new(reason::ERR_IMAGE_NEVER_PULL, message));
            }
            ("Never" | "IfNotPresent", Some(image)) => {
                let message = format!("Container image \"{name}\" already present on machine");
                event(EventKind::Normal, "Pulled", message);
                return Ok(present_image(spec, image));
            }
            _ => {}
        }
        self.pull(pod, name, spec, about, objects, sandbox).await
    }

    async fn pull(
        &self,
        pod: &Pod,
        name: &str,
        spec: cri::ImageSpec,
        about: &ObjectReference,
        objects: &Objects,
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<Present, Waiting> {
        let event = |kind, reason: &str, message: String| self.events.event(about.clone(), kind, reason, message);
        let key = (names::uid(pod).to_owned(), name.to_owned());
        let failure = self.failures.lock().get(&key).cloned();
        if let Some(failure) = &failure
            && failure.backoff.remaining(failure.at, Timestamp::now()).is_some()
        {
            let message = format!("Back-off pulling image \"{name}\"");
            event(EventKind::Normal, "BackOff", message.clone());
            return Err(Waiting::new(reason::IMAGE_PULL_BACK_OFF, format!("{message}: {}", failure.message)));
        }
        let queued = Instant::now();
        let _permit = self.permits.acquire().await;
        let started = Instant::now();
        event(EventKind::Normal, "Pulling", format!("Pulling image \"{name}\""));
        let mut outcome = Ok(String::new());
        for auth in self.candidates(pod, name, objects).await {
            outcome = self.runtime.pull(spec.clone(), auth, sandbox.clone()).await;
            if outcome.is_ok() {
                break;
            }
        }
        let checked = match outcome {
            Ok(_) => self.runtime.image(spec.clone()).await,
            Err(error) => Err(error),
        };
        let message = match checked {
            Ok(Some(image)) => {
                self.failures.lock().remove(&key);
                let (pull, whole) = (started.elapsed(), queued.elapsed());
                let size = image.size;
                event(
                    EventKind::Normal,
                    "Pulled",
                    format!(
                        "Successfully pulled image \"{name}\" in {}ms ({}ms including waiting). Image size: {size} bytes.",
                        pull.as_millis(),
                        whole.as_millis()
                    ),
                );
                return Ok(present_image(spec, image));
            }
            Ok(None) => "the runtime pulled the image but does not have it".to_owned(),
            Err(error) => error.to_string(),
        };
        let now = Timestamp::now();
        let full = format!("Failed to pull image \"{name}\": {message}");
        event(EventKind::Warning, "Failed", full);
        let mut backoff = failure.map(|failure| failure.backoff).unwrap_or_default();
        backoff.next(now, now);
        let text = format!("{}: {message}", reason::ERR_IMAGE_PULL);
        self.failures.lock().insert(key, Failure { at: now, message: text, backoff });
        Err(Waiting::new(reason::ERR_IMAGE_PULL, message))
    }

    /// Credentials to try in turn; without any fitting, one try without.
    async fn candidates(&self, pod: &Pod, image: &str, objects: &Objects) -> Vec<Option<cri::AuthConfig>> {
        let named = pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_ref());
        let mut secrets: Vec<Secret> = Vec::new();
        for reference in named.into_iter().flatten() {
            match objects.secret(names::namespace(pod), &reference.name).await {
                Ok(Some(secret)) => secrets.push((*secret).clone()),
                Ok(None) => tracing::debug!(name = reference.name, "image pull secret does not exist"),
                Err(error) => tracing::debug!(name = reference.name, %error, "image pull secret cannot be read"),
            }
        }
        let found: Vec<_> = credentials::matching(image, &secrets).into_iter().map(Some).collect();
        if found.is_empty() { vec![None] } else { found }
    }

    /// How long the pod's next pull of an image must wait.
    pub(crate) fn retry_in(&self, uid: &str, now: Timestamp) -> Option<std::time::Duration> {
        let failures = self.failures.lock();
        let of_pod = failures.iter().filter(|((pod, _), _)| pod == uid);
        of_pod.map(|(_, f)| f.backoff.remaining(f.at, now).map(|(left, _)| left).unwrap_or_default()).min()
    }

    /// Forgets the pod's failures.
    pub(crate) fn forget(&self, uid: &str) {
        self.failures.lock().retain(|(pod, _), _| pod != uid);
    }
}

fn present_image(mut spec: cri::ImageSpec, image: cri::Image) -> Present {
    // Runtimes find an image by its id even after its tag has moved.
    if !image.id.is_empty() {
        spec.image = image.id.clone();
        spec.image_ref.clear();
    }
    Present { spec, image }
}
