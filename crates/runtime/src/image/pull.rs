//! Pulls from OCI registries.
//!
//! The registry protocol is the oci-client crate's; what is pulled is verified here again: the
//! manifest and configuration against their digests, each layer against its diff id.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use super::archive::{Descriptor, MAX_DOCUMENT_BYTES, Manifest, check_digest, choose, digest_of};
use super::store::{ImageRecord, ImageStore, LayerReservation};
use super::{ImageConfigFile, ImageName};
use crate::error::{Error, blocking};

/// Layers of one image that are fetched at the same time.
const PARALLEL_LAYERS: usize = 3;
/// A registry that sends nothing for so long has failed.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
/// A registry that does not accept a connection for so long has failed.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);

const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Registries (`host:port`) spoken to over plain HTTP. `localhost` and loopback addresses always are.
    pub insecure: Vec<String>,
    /// (registry, mirror host) pairs: the mirror is tried first.
    pub mirrors: Vec<(String, String)>,
    /// Certificate authorities to trust besides the built-in ones, PEM.
    pub extra_roots_pem: Vec<Vec<u8>>,
}

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullProgress {
    /// The manifest is known: this many layers of so many bytes, compressed.
    Resolved {
        /// Layers.
        layers: usize,
        /// Bytes.
        bytes: u64,
    },
    /// A layer is there, unpacked.
    Layer {
        /// Its digest.
        digest: String,
        /// Its compressed bytes; zero when it was there before.
        bytes: u64,
    },
}

/// Called as a pull goes on.
pub(crate) type ProgressSink = Arc<dyn Fn(PullProgress) + Send + Sync>;

pub(crate) struct Puller {
    client: Client,
    config: RegistryConfig,
}

impl Puller {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        // Another part of the process may have chosen the provider already; then theirs is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut plain = config.insecure.clone();
        plain.extend(config.mirrors.iter().map(|(_, mirror)| mirror.clone()).filter(|m| is_loopback(m)));
        let extra = config.extra_roots_pem.iter().map(|pem| oci_client::client::Certificate {
            encoding: oci_client::client::CertificateEncoding::Pem,
            data: pem.clone(),
        });
        let client = Client::new(ClientConfig {
            protocol: ClientProtocol::HttpsExcept(plain),
            extra_root_certificates: extra.collect(),
            read_timeout: Some(READ_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            user_agent: concat!("ironkeel/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        });
        Puller { client, config }
    }

    /// Loopback registries are found by name, so their client speaks HTTP to exactly them.
    fn client_for(&self, registry: &str) -> Client {
        if is_loopback(registry) && !self.config.insecure.iter().any(|r| r == registry) {
            return Client::new(ClientConfig {
                protocol: ClientProtocol::Http,
                read_timeout: Some(READ_TIMEOUT),
                connect_timeout: Some(CONNECT_TIMEOUT),
                ..ClientConfig::default()
            });
        }
        self.client.clone()
    }

    pub(crate) async fn pull(
        &self,
        store: &Arc<ImageStore>,
        name: &ImageName,
        auth: RegistryAuth,
        progress: Option<ProgressSink>,
    ) -> Result<Arc<ImageRecord>, Error> {
        let mirror = self.config.mirrors.iter().find(|(registry, _)| *registry == name.registry);
        if let Some((_, host)) = mirror {
            let via = Pull::new(self.client_for(host), host, name, RegistryAuth::Anonymous, progress.clone());
            match via.run(store).await {
                Ok(image) => return Ok(image),
                Err(error) => {
                    tracing::warn!(image = %name, mirror = host, %error, "the mirror failed, asking the registry")
                }
            }
        }
        Pull::new(self.client_for(&name.registry), &name.registry, name, auth, progress).run(store).await
    }
}

fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

struct Pull<'a> {
    client: Client,
    host: &'a str,
    name: &'a ImageName,
    auth: RegistryAuth,
    progress: Option<ProgressSink>,
}

impl<'a> Pull<'a> {
    fn new(
        client: Client,
        host: &'a str,
        name: &'a ImageName,
        auth: RegistryAuth,
        progress: Option<ProgressSink>,
    ) -> Self {
        Pull { client, host, name, auth, progress }
    }

    fn registry_error(&self) -> impl Fn(OciDistributionError) -> Error {
        let image = self.name.to_string();
        move |source| Error::Registry { image: image.clone(), source: Box::new(source) }
    }

    fn reference(&self, digest: Option<&str>) -> Reference {
        let (host, repository) = (self.host.to_owned(), self.name.repository.clone());
        match (digest.or(self.name.digest.as_deref()), &self.name.tag) {
            (Some(digest), _) => Reference::with_digest(host, repository, digest.to_owned()),
            (None, tag) => Reference::with_tag(host, repository, tag.clone().unwrap_or_else(|| "latest".into())),
        }
    }

    fn tell(&self, progress: PullProgress) {
        if let Some(sink) = &self.progress {
            sink(progress);
        }
    }

    async fn manifest(&self, digest: Option<&str>) -> Result<(Manifest, String), Error> {
        let (bytes, _) = self
            .client
            .pull_manifest_raw(&self.reference(digest), &self.auth, &MANIFEST_TYPES)
            .await
            .map_err(self.registry_error())?;
        if let Some(expected) = digest.or(self.name.digest.as_deref()) {
            check_digest("manifest", expected, &bytes)?;
        }
        let manifest = serde_json::from_slice(&bytes).map_err(Error::format("the image's manifest"))?;
        Ok((manifest, digest_of(&bytes)))
    }

    async fn run(&self, store: &Arc<ImageStore>) -> Result<Arc<ImageRecord>, Error> {
        let (mut manifest, digest) = self.manifest(None).await?;
        if !manifest.manifests.is_empty() {
            let chosen = choose(&manifest.manifests)
                .ok_or_else(|| Error::Invalid(format!("{} has no image for this machine's architecture", self.name)))?;
            manifest = self.manifest(Some(&chosen.digest.clone())).await?.0;
        }
        let config =
            manifest.config.as_ref().ok_or_else(|| Error::Invalid("the manifest has no configuration".into()))?;
        let config_text = self.config(config).await?;
        let file: ImageConfigFile =
            serde_json::from_str(&config_text).map_err(Error::format("the image's configuration"))?;
        let diff_ids = file.rootfs.diff_ids;
        let layers: Vec<&Descriptor> = manifest.layers.iter().filter(|l| !l.media_type.contains("in-toto")).collect();
        if diff_ids.len() != layers.len() || !diff_ids.iter().all(|d| super::reference::is_digest(d)) {
            return Err(Error::Invalid(format!(
                "{}: the configuration and the manifest name different layers",
                self.name
            )));
        }
        self.tell(PullProgress::Resolved { layers: layers.len(), bytes: layers.iter().map(|l| l.size).sum() });
        let reservation = store.reserve(&diff_ids);
        let mut fetches: Vec<BoxFuture<'_, Result<(), Error>>> = Vec::new();
        for (diff_id, layer) in diff_ids.iter().zip(layers) {
            fetches.push(Box::pin(self.layer(store, &reservation, diff_id, layer)));
        }
        // All in one task: dropping the pull stops every fetch.
        futures::stream::iter(fetches).buffer_unordered(PARALLEL_LAYERS).try_collect::<Vec<()>>().await?;
        let size = diff_ids.iter().map(|d| store.layer_size(d)).sum();
        store.add(ImageRecord {
            id: digest_of(config_text.as_bytes()),
            tags: self.name.tagged().into_iter().collect(),
            digests: BTreeSet::from([format!("{}@{digest}", self.name.repository_name())]),
            layers: diff_ids,
            size,
            config: config_text,
            pinned: false,
        })
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<String, Error> {
        if descriptor.size > MAX_DOCUMENT_BYTES {
            return Err(Error::Invalid(format!("{}: the configuration is too long", self.name)));
        }
        let mut bytes = Vec::new();
        let reference = self.reference(None);
        let blob = self.client.pull_blob(&reference, descriptor.digest.as_str(), &mut bytes);
        blob.await.map_err(self.registry_error())?;
        check_digest("configuration", &descriptor.digest, &bytes)?;
        String::from_utf8(bytes).map_err(|_| Error::Invalid(format!("{}: the configuration is not text", self.name)))
    }

    async fn layer(
        &self,
        store: &Arc<ImageStore>,
        reservation: &LayerReservation,
        diff_id: &str,
        layer: &Descriptor,
    ) -> Result<(), Error> {
        let _making = reservation.lock(diff_id).await;
        if store.has_layer(diff_id) {
            self.tell(PullProgress::Layer { digest: layer.digest.clone(), bytes: 0 });
            return Ok(());
        }
        let download = Download(store.ingest_dir().join(uuid::Uuid::new_v4().simple().to_string()));
        let mut file = tokio::fs::File::create(&download.0).await.map_err(Error::path("creating", &download.0))?;
        let reference = self.reference(None);
        let blob = self.client.pull_blob(&reference, layer.digest.as_str(), &mut file);
        blob.await.map_err(self.registry_error())?;
        tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(Error::path("writing", &download.0))?;
        drop(file);
        let (store, diff_id) = (store.clone(), diff_id.to_owned());
        blocking(move || {
            let file = std::fs::File::open(&download.0).map_err(Error::path("reading", &download.0))?;
            store.put_layer(&diff_id, std::io::BufReader::new(file))
        })
        .await?;
        self.tell(PullProgress::Layer { digest: layer.digest.clone(), bytes: layer.size });
        Ok(())
    }
}

/// A half-made file that goes with whoever made it.
struct Download(PathBuf);

impl Drop for Download {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
