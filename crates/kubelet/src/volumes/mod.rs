//! Volumes of pods: where each lives on the host, set up before the containers, kept up to date, torn down after.
//! Kinds: emptyDir, hostPath, configMap, secret, downwardAPI, projected, and claims bound to hostPath or local
//! volumes. Others are refused by name.

pub(crate) mod atomic;
mod host_path;
pub(crate) mod mounts;
pub(crate) mod payload;
mod token;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ironkeel_journal::Journal;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::{Api, Client};

use crate::{Error, error::FileContext, names, names::Paths, objects::Objects, resources};

pub(crate) use payload::Facts;

/// Where a pod's volumes are on the host, by their name.
pub(crate) type HostPaths = BTreeMap<String, PathBuf>;

/// Sets up and tears down pods' volumes.
pub(crate) struct Volumes {
    client: Client,
    paths: Paths,
    pub(crate) objects: Arc<Objects>,
    tokens: token::Tokens,
    journal: Option<Arc<Journal>>,
}

/// A pod's volumes after a set-up.
pub(crate) struct SetUp {
    pub(crate) host_paths: HostPaths,
    /// When tokens must be renewed.
    pub(crate) renew_at: Option<Timestamp>,
}

impl Volumes {
    pub(crate) fn new(client: Client, paths: Paths, objects: Arc<Objects>, journal: Option<Arc<Journal>>) -> Self {
        Self { tokens: token::Tokens::new(client.clone()), client, paths, objects, journal }
    }

    /// The journal's reference, for mounts made elsewhere for volumes' sake.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.journal.as_deref()
    }

    /// Sets up every volume of the pod, or brings its content up to date.
    pub(crate) async fn set_up(&self, facts: &Facts<'_>) -> Result<SetUp, Error> {
        let mut result = SetUp { host_paths: HostPaths::new(), renew_at: None };
        let Some(spec) = &facts.pod.spec else { return Ok(result) };
        let context = spec.security_context.as_ref();
        let group = context.and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok());
        for volume in spec.volumes.iter().flatten() {
            let (path, renew) = self.set_up_one(facts, volume, group).await?;
            result.host_paths.insert(volume.name.clone(), path);
            result.renew_at = match (result.renew_at, renew) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(result)
    }

    async fn set_up_one(
        &self,
        facts: &Facts<'_>,
        volume: &Volume,
        group: Option<u32>,
    ) -> Result<(PathBuf, Option<Timestamp>), Error> {
        let uid = names::uid(facts.pod);
        let refuse = |reason: String| Error::Volume { volume: volume.name.clone(), reason };
        if let Some((payload, renew)) = self.payload(facts, volume).await? {
            let plugin = match () {
                () if volume.config_map.is_some() => "kubernetes.io~configmap",
                () if volume.secret.is_some() => "kubernetes.io~secret",
                () if volume.downward_api.is_some() => "kubernetes.io~downward-api",
                () => "kubernetes.io~projected",
            };
            let path = self.paths.volume(uid, plugin, &volume.name);
            fs::create_dir_all(&path).file("creating", &path)?;
            if volume.config_map.is_none() && nix::unistd::geteuid().is_root() {
                // Secrets and tokens never touch the disk.
                mounts::mount_tmpfs(&path, 0, self.journal())?;
            }
            atomic::write(&path, &payload, group)?;
            return Ok((path, renew));
        }
        if let Some(source) = &volume.empty_dir {
            let path = self.paths.volume(uid, "kubernetes.io~empty-dir", &volume.name);
            let fresh = !path.exists();
            if fresh {
                fs::create_dir_all(&path).file("creating", &path)?;
            }
            if source.medium.as_deref() == Some("Memory") {
                let size = source.size_limit.as_ref().map(resources::value).unwrap_or_default();
                mounts::mount_tmpfs(&path, size, self.journal())?;
            }
            if fresh {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).file("setting the mode of", &path)?;
                if let Some(group) = group {
                    atomic::set_group(&path, group)?;
                }
            }
            return Ok((path, None));
        }
        if let Some(source) = &volume.host_path {
            let path = PathBuf::from(&source.path);
            host_path::check(&path, source.type_.as_deref().unwrap_or_default()).map_err(refuse)?;
            return Ok((path, None));
        }
        if let Some(source) = &volume.persistent_volume_claim {
            let path = self.claim(facts.pod, &source.claim_name).await.map_err(|error| match error {
                Error::ContainerConfig(reason) => refuse(reason),
                other => other,
            })?;
            return Ok((path, None));
        }
        if let Some(source) = &volume.ephemeral
            && source.volume_claim_template.is_some()
        {
            let claim = format!("{}-{}", names::name(facts.pod), volume.name);
            return Ok((self.claim(facts.pod, &claim).await?, None));
        }
        Err(refuse("no volume plugin matched".into()))
    }

    /// The host path behind a claim.
    async fn claim(&self, pod: &Pod, name: &str) -> Result<PathBuf, Error> {
        let refuse = |reason: String| Err(Error::ContainerConfig(reason));
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), names::namespace(pod));
        let Some(claim) = claims.get_opt(name).await? else {
            return refuse(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let volume = claim.spec.and_then(|spec| spec.volume_name).filter(|name| bound && !name.is_empty());
        let Some(volume) = volume else { return refuse(format!("PVC {name} is not bound")) };
        let Some(volume) = Api::<PersistentVolume>::all(self.client.clone()).get_opt(&volume).await? else {
            return refuse(format!("persistentvolume \"{volume}\" not found"));
        };
        let spec = volume.spec.unwrap_or_default();
        if let Some(source) = spec.host_path {
            let path = PathBuf::from(&source.path);
            match host_path::check(&path, source.type_.as_deref().unwrap_or_default()) {
                Ok(()) => {}
                Err(reason) => return refuse(reason),
            }
            if !path.exists() {
                fs::create_dir_all(&path).file("creating", &path)?;
            }
            return Ok(path);
        }
        match spec.local {
            Some(local) if Path::new(&local.path).exists() => Ok(local.path.into()),
            Some(local) => refuse(format!("path \"{}\" does not exist", local.path)),
            None => refuse("no volume plugin matched".into()),
        }
    }

    /// Unmounts and deletes everything that the pod had below the kubelet's root.
    pub(crate) fn tear_down(&self, uid: &str) -> Result<(), Error> {
        self.tokens.forget(uid);
        let directory = self.paths.pod(uid);
        mounts::unmount_below(&directory, self.journal())?;
        for part in ["volumes", "volume-subpaths"] {
            let path = directory.join(part);
            if path.exists() {
                fs::remove_dir_all(&path).file("removing", &path)?;
            }
        }
        Ok(())
    }

    /// Deletes the pod's directory after [`tear_down`](Self::tear_down).
    pub(crate) fn remove_directory(&self, uid: &str) -> Result<(), Error> {
        self.tear_down(uid)?;
        let directory = self.paths.pod(uid);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).file("removing", directory),
            _ => Ok(()),
        }
    }
}
