//! The store's engine: the embedded one, or an etcd. The only place that names them.

use std::path::PathBuf;
use std::sync::Arc;

use ironkeel_embedded::Embedded;
use ironkeel_etcd::Etcd;
use ironkeel_store::Store;

use crate::Error;

/// Where objects are kept.
#[derive(Clone, Debug)]
pub(crate) enum StoreOptions {
    /// In these etcds.
    Etcd(ironkeel_etcd::Config),
    /// In `store` of this data directory, which is made for its owner alone.
    Embedded(PathBuf),
}

/// An open store.
pub(crate) enum Engine {
    Etcd(Arc<Etcd>),
    Embedded(Arc<Embedded>),
}

impl Engine {
    /// Opens the directory, or reaches one member at least.
    pub(crate) async fn open(options: StoreOptions) -> Result<Self, Error> {
        Ok(match options {
            StoreOptions::Etcd(config) => {
                Engine::Etcd(Etcd::connect(config).await.map_err(|e| Error::ApiServer(e.to_string()))?)
            }
            StoreOptions::Embedded(dir) => {
                ironkeel_auth::pki::create_private_dir(&dir)?;
                let opening = tokio::task::spawn_blocking(move || {
                    Embedded::open(dir.join("store"), ironkeel_embedded::Options::default())
                });
                Engine::Embedded(opening.await.map_err(|e| Error::ApiServer(e.to_string()))??)
            }
        })
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Engine::Etcd(etcd) => etcd.clone(),
            Engine::Embedded(embedded) => embedded.clone(),
        }
    }

    pub(crate) async fn close(self) {
        match self {
            Engine::Etcd(etcd) => etcd.close(),
            Engine::Embedded(embedded) => embedded.close().await,
        }
    }
}
