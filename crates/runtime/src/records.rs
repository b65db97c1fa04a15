//! What is kept on disk of sandboxes and containers, so that a new process finds them again.

use std::path::Path;

use base64::Engine;
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;
use crate::image;

/// A CRI message inside a JSON record: base64 of its wire form.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire<M>(pub(crate) M);

impl<M: Message> Serialize for Wire<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(self.0.encode_to_vec()))
    }
}

impl<'de, M: Message + Default> Deserialize<'de> for Wire<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(D::Error::custom)?;
        M::decode(&bytes[..]).map(Wire).map_err(D::Error::custom)
    }
}

/// A process that can be recognized although pids are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    /// Field 22 of /proc/<pid>/stat.
    pub(crate) start_time: u64,
}

impl ProcessIdentity {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may contain anything, so fields are counted after its closing parenthesis.
        let start_time = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(ProcessIdentity { pid, start_time })
    }

    pub(crate) fn journal_entry(self) -> ironkeel_journal::Entry {
        ironkeel_journal::Entry::Process { pid: self.pid, start_time: self.start_time }
    }

    pub(crate) fn kill(self) {
        if Self::of(self.pid) == Some(self) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    /// Nanoseconds since the epoch.
    pub(crate) created_at: i64,
    pub(crate) config: Wire<ironkeel_cri::v1::PodSandboxConfig>,
    pub(crate) runtime_handler: String,
    /// Set when it was up once; a record without is what a crash left.
    pub(crate) complete: bool,
    pub(crate) stopped: bool,
    pub(crate) ips: Vec<String>,
    pub(crate) shim: Option<ProcessIdentity>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) sandbox_id: String,
    /// Nanoseconds since the epoch.
    pub(crate) created_at: i64,
    pub(crate) config: Wire<ironkeel_cri::v1::ContainerConfig>,
    pub(crate) image_id: String,
    pub(crate) image_ref: String,
    /// The name to show: a tag where the image has one.
    #[serde(default)]
    pub(crate) image_name: String,
    pub(crate) cgroup: String,
    pub(crate) log_path: String,
    pub(crate) stop_signal: i32,
    pub(crate) own_pid_namespace: bool,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// Read-only mounts of image volumes.
    pub(crate) image_mounts: Vec<String>,
}

pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(record).map_err(Error::format(path.display().to_string()))?;
    image::write_atomically(path, &bytes)
}

pub(crate) fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, Error> {
    let bytes = std::fs::read(path).map_err(Error::path("reading", path))?;
    serde_json::from_slice(&bytes).map_err(Error::format(path.display().to_string()))
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A new id: 64 hexadecimal digits, as the CRI's users expect.
pub(crate) fn new_id() -> String {
    use std::fmt::Write;
    let bytes: [u8; 32] = rand::random();
    bytes.iter().fold(String::with_capacity(64), |mut id, b| {
        let _ = write!(id, "{b:02x}");
        id
    })
}
