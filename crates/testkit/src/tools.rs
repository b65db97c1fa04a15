//! What the tests need and this repository does not hold: kubectl and helm as their makers built
//! them, a registry, and the images of `cargo xtask images`.
//!
//! `.ci/run` installs all of them. Without one, a test that needs it says so and ends.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{Error, Outcome, run};

/// Below the user's home: where `.ci/run` puts kubectl and helm.
const CACHE: &str = ".cache/ironkeel-tools";
/// Limit of building and packing the images.
const IMAGES_LIMIT: std::time::Duration = std::time::Duration::from_secs(600);
/// The archives of `cargo xtask images`, below the repository.
const IMAGES: [&str; 3] =
    ["target/images/busybox-1.tar", "target/images/guestbook-1.tar", "target/images/guestbook-2.tar"];

/// A program that a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// An unmodified kubectl, 1.35 or 1.36.
    Kubectl,
    /// An unmodified helm.
    Helm,
    /// Debian's docker-registry.
    Registry,
    /// nftables' own listing.
    Nft,
    /// A real etcd.
    Etcd,
}

impl Tool {
    fn program(self) -> &'static str {
        match self {
            Tool::Kubectl => "kubectl",
            Tool::Helm => "helm",
            Tool::Registry => "docker-registry",
            Tool::Nft => "nft",
            Tool::Etcd => "etcd",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Tool::Kubectl => "KUBECTL",
            Tool::Helm => "HELM",
            Tool::Registry => "DOCKER_REGISTRY",
            Tool::Nft => "NFT",
            Tool::Etcd => "ETCD",
        }
    }

    /// Where it is: its variable, the cache, or `PATH`.
    pub fn path(self) -> Option<PathBuf> {
        let name = self.program();
        if let Some(given) = std::env::var_os(self.variable()) {
            return Some(PathBuf::from(given)).filter(|p| p.is_file());
        }
        let cached = std::env::home_dir().map(|home| home.join(CACHE).join(name).join(name));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        cached.into_iter().chain(folders.map(|f| f.join(name))).find(|p| p.is_file())
    }
}

/// Whether a test can run here: as root, with these tools. Says why when it cannot.
pub fn can_run(test: &str, tools: &[Tool]) -> bool {
    if !nix::unistd::geteuid().is_root() {
        say(&format!("{test}: skipped: needs root"));
        return false;
    }
    for tool in tools {
        if tool.path().is_none() {
            say(&format!("{test}: skipped: no {} (set {})", tool.program(), tool.variable()));
            return false;
        }
    }
    true
}

/// Writes a line to standard error past the test runner's capture, so that a long run can be followed.
pub fn say(line: &str) {
    // Without a standard error nobody reads it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The repository's folder.
pub fn repository() -> &'static Path {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    crates.and_then(Path::parent).unwrap_or(Path::new("/"))
}

/// The image archives; packs them when they are not there yet.
pub fn images() -> Outcome<Vec<PathBuf>> {
    static PACKED: OnceLock<Result<(), String>> = OnceLock::new();
    let paths: Vec<PathBuf> = IMAGES.iter().map(|i| repository().join(i)).collect();
    let packed = PACKED.get_or_init(|| {
        if paths.iter().all(|p| p.is_file()) {
            return Ok(());
        }
        let mut pack = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        pack.args(["xtask", "images"]).current_dir(repository());
        run::finish(pack, None, IMAGES_LIMIT).and_then(run::Output::ok).map(drop).map_err(|e| e.to_string())
    });
    match packed {
        Ok(()) => Ok(paths),
        Err(reason) => Err(Error::Unexpected {
            what: "cargo xtask images".into(),
            expected: "archives".into(),
            got: reason.clone(),
        }),
    }
}
