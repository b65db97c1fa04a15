//! The journal of what was made on this host, and its undoing.
//!
//! Whoever makes a link, mount, cgroup, namespace, nftables table or process writes it here *before*
//! making it and strikes it out after undoing it. `ironkeel reset` replays what is left. One file a
//! data directory, one JSON entry a line, appended; a torn last line is ignored.

use serde::{Deserialize, Serialize};

mod file;
mod undo;

pub use file::{Journal, JournalError};
pub use undo::{HostNetwork, UndoReport, cgroup_roots, process_start_time, undo_all};

/// One thing on the host. Undoing something that is gone already is a success.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Entry {
    /// A network link in the host's namespace.
    Link {
        /// Interface name.
        name: String,
    },
    /// A mount point.
    Mount {
        /// Where.
        path: String,
    },
    /// A cgroup directory and everything below it; processes in it are killed first.
    /// On cgroup v1 the same relative path is removed from every hierarchy.
    Cgroup {
        /// Path relative to the hierarchy roots, for example `/ironkeel-1a2b3c`.
        path: String,
    },
    /// A route of the host's main table.
    Route {
        /// `10.42.1.0/24`.
        destination: String,
        /// Next hop; a route through another one is not ours.
        gateway: String,
    },
    /// An nftables table.
    NftTable {
        /// `inet`, `ip` or `ip6`.
        family: String,
        /// Name.
        name: String,
    },
    /// A bind-mounted namespace file.
    Namespace {
        /// Where.
        path: String,
    },
    /// A process; killed only when its start time still matches, so a recycled pid is safe.
    Process {
        /// Process id.
        pid: i32,
        /// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot.
        start_time: u64,
    },
    /// A file or an empty directory outside the data directory.
    File {
        /// Where.
        path: String,
    },
    /// A directory tree outside the data directory that is ours alone (runtime state, logs).
    Tree {
        /// Where.
        path: String,
    },
    /// A sysctl, with the value to restore.
    Sysctl {
        /// `net.ipv4.ip_forward`.
        name: String,
        /// The value that was found.
        previous: String,
    },
}
