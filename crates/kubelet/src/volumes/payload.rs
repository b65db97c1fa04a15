//! What is in configMap, secret, downwardAPI and projected volumes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume,
};

use crate::{Error, names, pods::env, resources::ResourceList};

use super::{
    Volumes,
    atomic::{Payload, Projection, is_safe},
};

/// Mode of files when nobody says otherwise.
const DEFAULT_MODE: i32 = 0o644;

/// What the pod's own fields are worth, for the downward API.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ips: &'a [String],
    pub(crate) host_ips: &'a [String],
    pub(crate) allocatable: &'a ResourceList,
}

fn refuse(volume: &str, reason: impl Into<String>) -> Error {
    Error::Volume { volume: volume.to_owned(), reason: reason.into() }
}

fn put(payload: &mut Payload, volume: &str, path: &str, data: Vec<u8>, mode: i32) -> Result<(), Error> {
    if !is_safe(path) {
        return Err(refuse(volume, format!("invalid path {path:?}")));
    }
    payload.insert(path.to_owned(), Projection { data, mode: mode as u32 & 0o7777, uid: None });
    Ok(())
}

/// Adds the chosen keys (or all) of an object's data.
fn add_keys<'a>(
    payload: &mut Payload,
    volume: &str,
    object: &str,
    data: impl Iterator<Item = (&'a str, &'a [u8])>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
) -> Result<(), Error> {
    let data: Vec<_> = data.collect();
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, value) in data {
            put(payload, volume, key, value.to_vec(), mode)?;
        }
        return Ok(());
    };
    for item in items {
        match data.iter().find(|(key, _)| *key == item.key) {
            Some((_, value)) => put(payload, volume, &item.path, value.to_vec(), item.mode.unwrap_or(mode))?,
            None if optional => {}
            None => return Err(refuse(volume, format!("{object} references non-existent key: {}", item.key))),
        }
    }
    Ok(())
}

fn config_map_data(map: &ConfigMap) -> impl Iterator<Item = (&str, &[u8])> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    text.chain(map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())))
}

fn secret_data(secret: &Secret) -> impl Iterator<Item = (&str, &[u8])> {
    secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()))
}

impl Volumes {
    /// The files of a volume whose content comes from the API, and when they must be made again; `None` for volumes
    /// of other kinds.
    pub(crate) async fn payload(
        &self,
        facts: &Facts<'_>,
        volume: &Volume,
    ) -> Result<Option<(Payload, Option<Timestamp>)>, Error> {
        let mut payload = Payload::new();
        let mut renew = None;
        if let Some(source) = &volume.config_map {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let optional = source.optional == Some(true);
            self.config_map(facts, &mut payload, volume, &source.name, source.items.as_deref(), mode, optional).await?;
        } else if let Some(source) = &volume.secret {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let (name, optional) = (source.secret_name.as_deref().unwrap_or_default(), source.optional == Some(true));
            self.secret(facts, &mut payload, volume, name, source.items.as_deref(), mode, optional).await?;
        } else if let Some(source) = &volume.downward_api {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            downward(facts, &mut payload, &volume.name, source.items.as_deref().unwrap_or_default(), mode)?;
        } else if let Some(source) = &volume.projected {
            renew = self.projected(facts, &mut payload, volume, source).await?;
        } else {
            return Ok(None);
        }
        Ok(Some((payload, renew)))
    }

    #[allow(clippy::too_many_arguments)]
    async fn config_map(
        &self,
        facts: &Facts<'_>,
        payload: &mut Payload,
        volume: &Volume,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: bool,
    ) -> Result<(), Error> {
        match self.objects.config_map(names::namespace(facts.pod), name).await? {
            Some(map) => add_keys(payload, &volume.name, "configmap", config_map_data(&map), items, mode, optional),
            None if optional => Ok(()),
            None => Err(refuse(&volume.name, format!("configmap \"{name}\" not found"))),
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn secret(
        &self,
        facts: &Facts<'_>,
        payload: &mut Payload,
        volume: &Volume,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: i32,
        optional: bool,
    ) -> Result<(), Error> {
        match self.objects.secret(names::namespace(facts.pod), name).await? {
            Some(secret) => add_keys(payload, &volume.name, "secret", secret_data(&secret), items, mode, optional),
            None if optional => Ok(()),
            None => Err(refuse(&volume.name, format!("secret \"{name}\" not found"))),
        }
    }

    async fn projected(
        &self,
        facts: &Facts<'_>,
        payload: &mut Payload,
        volume: &Volume,
        projected: &ProjectedVolumeSource,
    ) -> Result<Option<Timestamp>, Error> {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        let mut renew: Option<Timestamp> = None;
        for source in projected.sources.iter().flatten() {
            if let Some(map) = &source.config_map {
                let optional = map.optional == Some(true);
                self.config_map(facts, payload, volume, &map.name, map.items.as_deref(), mode, optional).await?;
            } else if let Some(secret) = &source.secret {
                let optional = secret.optional == Some(true);
                self.secret(facts, payload, volume, &secret.name, secret.items.as_deref(), mode, optional).await?;
            } else if let Some(source) = &source.downward_api {
                downward(facts, payload, &volume.name, source.items.as_deref().unwrap_or_default(), mode)?;
            } else if let Some(token) = &source.service_account_token {
                let (text, at) = self.tokens.get(facts.pod, token).await?;
                let (mode, uid) = token_owner(facts.pod, mode);
                put(payload, &volume.name, &token.path, text.into_bytes(), mode)?;
                if let Some(file) = payload.get_mut(&token.path) {
                    file.uid = uid;
                }
                renew = Some(renew.map_or(at, |renew| renew.min(at)));
            } else {
                return Err(refuse(&volume.name, "this kind of projection is not supported"));
            }
        }
        Ok(renew)
    }
}

/// Tokens are readable by their pod only: the group's with an fsGroup, the one user's when all containers share it.
fn token_owner(pod: &Pod, mode: i32) -> (i32, Option<u32>) {
    let Some(spec) = &pod.spec else { return (mode, None) };
    let context = spec.security_context.clone().unwrap_or_default();
    if context.fs_group.is_some() {
        return (0o600, None);
    }
    let users: Vec<Option<i64>> = super::super::pods::spec::containers(pod)
        .iter()
        .map(|(_, container)| {
            container.security_context.as_ref().and_then(|own| own.run_as_user).or(context.run_as_user)
        })
        .collect();
    match users.first().copied().flatten() {
        Some(user) if users.iter().all(|other| *other == Some(user)) => (0o600, u32::try_from(user).ok()),
        _ => (mode, None),
    }
}

fn downward(
    facts: &Facts<'_>,
    payload: &mut Payload,
    volume: &str,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
) -> Result<(), Error> {
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            let value = env::field_value(facts.pod, &field.field_path, facts.pod_ips, facts.host_ips);
            value.ok_or_else(|| refuse(volume, format!("unsupported fieldPath: {}", field.field_path)))?
        } else if let Some(field) = &item.resource_field_ref {
            env::resource_value(facts.pod, field, None, facts.allocatable)?
        } else {
            continue;
        };
        put(payload, volume, &item.path, text.into_bytes(), item.mode.unwrap_or(mode))?;
    }
    Ok(())
}
