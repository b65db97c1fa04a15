//! Which pod has which address: one small file a sandbox, so that it survives restarts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{PodNetworkError, PortMapping};

/// What one sandbox holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) sandbox_id: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) link: String,
    pub(crate) ports: Vec<SavedPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPort {
    pub(crate) protocol: u8,
    pub(crate) host_ip: Option<Ipv4Addr>,
    pub(crate) host_port: u16,
    pub(crate) container_port: u16,
}

impl SavedPort {
    /// IPv6 host addresses and unknown protocols have no mapping.
    pub(crate) fn of(mapping: &PortMapping) -> Option<SavedPort> {
        let protocol = match mapping.protocol.as_str() {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            _ => return None,
        };
        let host_ip = match mapping.host_ip.as_str() {
            "" | "0.0.0.0" => None,
            text => Some(text.parse().ok()?),
        };
        let (host_port, container_port) = (mapping.host_port, mapping.container_port);
        (host_port != 0).then_some(SavedPort { protocol, host_ip, host_port, container_port })
    }
}

/// The address range of this node and who holds what of it.
#[derive(Debug)]
pub(crate) struct Addresses {
    dir: PathBuf,
    range: Ipv4Net,
    held: BTreeMap<String, Attachment>,
    last: u32,
}

fn host(step: &str, path: &Path, e: &std::io::Error) -> PodNetworkError {
    PodNetworkError::Host { step: format!("{step} {}", path.display()), reason: e.to_string() }
}

impl Addresses {
    /// Reads what is held. A file that cannot be read (a crash while it was written) is dropped:
    /// its sandbox was never told an address.
    pub(crate) fn open(dir: &Path, range: Ipv4Net) -> Result<Self, PodNetworkError> {
        std::fs::create_dir_all(dir).map_err(|e| host("creating", dir, &e))?;
        let mut held = BTreeMap::new();
        for file in std::fs::read_dir(dir).map_err(|e| host("reading", dir, &e))?.flatten() {
            let attachment =
                std::fs::read(file.path()).ok().and_then(|b| serde_json::from_slice::<Attachment>(&b).ok());
            match attachment {
                Some(a) if range.contains(&a.address) => drop(held.insert(a.sandbox_id.clone(), a)),
                _ => drop(std::fs::remove_file(file.path())),
            }
        }
        let last = held.values().map(|a| u32::from(a.address)).max().unwrap_or(u32::from(range.network()) + 1);
        Ok(Addresses { dir: dir.to_owned(), range, held, last })
    }

    /// The node's own address in the range: the first.
    pub(crate) fn gateway(range: Ipv4Net) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(range.network()) + 1)
    }

    pub(crate) fn get(&self, sandbox_id: &str) -> Option<&Attachment> {
        self.held.get(sandbox_id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Attachment> {
        self.held.values()
    }

    /// Gives the next free address, so that one just freed rests as long as possible.
    pub(crate) fn allocate(
        &mut self,
        sandbox_id: &str,
        link: String,
        ports: Vec<SavedPort>,
    ) -> Result<Attachment, PodNetworkError> {
        let first = u32::from(self.range.network()) + 2;
        let end = u32::from(self.range.broadcast());
        let taken: std::collections::HashSet<u32> = self.held.values().map(|a| a.address.into()).collect();
        let after = self.last.wrapping_add(1).max(first);
        let free = (after..end).chain(first..after.min(end)).find(|a| !taken.contains(a));
        let address = free.ok_or_else(|| PodNetworkError::NoAddress(self.range.to_string()))?;
        let attachment = Attachment { sandbox_id: sandbox_id.to_owned(), address: address.into(), link, ports };
        let path = self.file(sandbox_id);
        let fresh = path.with_extension("new");
        let bytes = serde_json::to_vec(&attachment).map_err(|e| host("writing", &path, &e.into()))?;
        std::fs::write(&fresh, bytes)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .map_err(|e| host("writing", &path, &e))?;
        self.last = address;
        self.held.insert(sandbox_id.to_owned(), attachment.clone());
        Ok(attachment)
    }

    pub(crate) fn release(&mut self, sandbox_id: &str) -> Option<Attachment> {
        let attachment = self.held.remove(sandbox_id)?;
        // A file that stays holds its address until the next start of the same sandbox's removal.
        let _ = std::fs::remove_file(self.file(sandbox_id));
        Some(attachment)
    }

    fn file(&self, sandbox_id: &str) -> PathBuf {
        let safe: String = sandbox_id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        self.dir.join(format!("{safe}.json"))
    }

    /// Addresses in use, first one first; for messages.
    pub(crate) fn addresses_of(attachment: &Attachment) -> Vec<IpAddr> {
        vec![attachment.address.into()]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_unique_rest_before_reuse_survive_reopening_and_run_out() {
        let dir = std::env::temp_dir().join(format!("ironkeel-addresses-{}", std::process::id()));
        let range: Ipv4Net = "10.9.0.0/29".parse().unwrap();
        let mut a = Addresses::open(&dir, range).unwrap();
        let take = |a: &mut Addresses, id: &str| a.allocate(id, "l".into(), vec![]).map(|x| x.address.octets()[3]);
        assert_eq!(take(&mut a, "s2").unwrap(), 2);
        assert_eq!(take(&mut a, "s3").unwrap(), 3);
        a.release("s2");
        assert_eq!(take(&mut a, "s4").unwrap(), 4);
        let mut a = Addresses::open(&dir, range).unwrap();
        assert_eq!(a.get("s3").unwrap().address.octets()[3], 3);
        assert_eq!([take(&mut a, "s5").unwrap(), take(&mut a, "s6").unwrap(), take(&mut a, "s7").unwrap()], [5, 6, 2]);
        assert!(matches!(take(&mut a, "s8"), Err(PodNetworkError::NoAddress(_))));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
