//! `node.json`: what a node's directory may not forget, so that its pods keep their network when it
//! starts while the API server does not answer.

use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{Error, Instance};

/// The record.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRecord {
    /// The Node.
    pub(crate) node_name: String,
    /// Its pods' range, once it has one.
    pub(crate) pod_cidr: Option<Ipv4Net>,
}

fn path(instance: &Instance) -> PathBuf {
    instance.dir.join("node.json")
}

/// Reads it; `None` before the first start.
pub(crate) fn read(instance: &Instance) -> Result<Option<NodeRecord>, Error> {
    let path = path(instance);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let record = serde_json::from_slice(&bytes);
            record.map(Some).map_err(|e| Error::Record { path, reason: e.to_string() })
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file("reading", &path)(e)),
    }
}

/// Writes it, whole or not at all.
pub(crate) fn write(instance: &Instance, record: &NodeRecord) -> Result<(), Error> {
    let path = path(instance);
    let bytes =
        serde_json::to_vec_pretty(record).map_err(|e| Error::Record { path: path.clone(), reason: e.to_string() })?;
    Ok(ironkeel_auth::pki::write_private(&path, &bytes)?)
}
