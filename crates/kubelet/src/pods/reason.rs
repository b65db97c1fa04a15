//! Why a container waits: the reasons that users read in `kubectl get pods`, part of the API.

/// A waiting reason and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Waiting {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

pub(crate) const ERR_IMAGE_PULL: &str = "ErrImagePull";
pub(crate) const IMAGE_PULL_BACK_OFF: &str = "ImagePullBackOff";
pub(crate) const INVALID_IMAGE_NAME: &str = "InvalidImageName";
pub(crate) const ERR_IMAGE_NEVER_PULL: &str = "ErrImageNeverPull";
pub(crate) const IMAGE_INSPECT_ERROR: &str = "ImageInspectError";
pub(crate) const CREATE_CONTAINER_CONFIG_ERROR: &str = "CreateContainerConfigError";
pub(crate) const CREATE_CONTAINER_ERROR: &str = "CreateContainerError";
pub(crate) const RUN_CONTAINER_ERROR: &str = "RunContainerError";
pub(crate) const POST_START_HOOK_ERROR: &str = "PostStartHookError";
pub(crate) const CRASH_LOOP_BACK_OFF: &str = "CrashLoopBackOff";
pub(crate) const CONTAINER_CREATING: &str = "ContainerCreating";
pub(crate) const POD_INITIALIZING: &str = "PodInitializing";
