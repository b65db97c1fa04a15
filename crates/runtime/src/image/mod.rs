//! Images: names, the content store, import from archives, pull from registries.

mod archive;
mod headers;
mod pull;
mod reference;
mod store;
mod unpack;
mod whiteout;

pub use archive::Imported;
pub(crate) use pull::{ProgressSink, Puller};
pub use pull::{PullProgress, RegistryConfig};
pub use reference::ImageName;
pub(crate) use store::write_atomically;
pub use store::{ImageRecord, ImageStore};

use serde::Deserialize;

/// The part of an image's configuration that running it needs (OCI image spec, "Image JSON").
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ImageConfigFile {
    pub(crate) config: Option<ImageConfig>,
    pub(crate) rootfs: RootFs,
    pub(crate) architecture: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    pub(crate) diff_ids: Vec<String>,
}

/// What to run, unless the pod says otherwise.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ImageConfig {
    pub(crate) user: Option<String>,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) labels: Option<std::collections::BTreeMap<String, String>>,
}
