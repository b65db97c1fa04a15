//! A real registry (Debian's docker-registry) on loopback in a test's network namespace, and an image
//! pushed to it over the distribution API.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::run::{self, Background};
use crate::tools::Tool;
use crate::{Error, NetworkNamespace, Outcome, expect, http};

/// The user of a registry that asks for one.
pub const USER: &str = "puller";
/// Its password.
pub const PASSWORD: &str = "s3cret-pass";
/// The line of htpasswd for both; the registry takes bcrypt only.
const HTPASSWD: &str = "puller:$2b$05$abcdefghijklmnopqrstuuV7fpPozvyqJfnY19y0802WTlXUm6Rjy\n";
/// USER:PASSWORD in base64.
const AUTHORIZATION: &str = "Basic cHVsbGVyOnMzY3JldC1wYXNz";
/// Where a blob goes.
const OCTETS: (&str, &str) = ("Content-Type", "application/octet-stream");

/// A registry that runs; gone with its images when dropped.
#[derive(Debug)]
pub struct Registry {
    namespace: NetworkNamespace,
    address: SocketAddr,
    authorization: Option<&'static str>,
    _process: Background,
    _dir: TempDir,
}

impl Registry {
    /// Starts one on 127.0.0.1; `private` ones want [`USER`] and [`PASSWORD`].
    pub fn start(namespace: &NetworkNamespace, port: u16, private: bool) -> Outcome<Self> {
        let dir = tempfile::tempdir().map_err(Error::io("a folder"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let at = |name: &str| dir.path().join(name);
        let mut config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            at("data").display()
        );
        if private {
            config += &format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", at("htpasswd").display());
        }
        std::fs::write(at("config.yml"), config).map_err(Error::io("config.yml"))?;
        std::fs::write(at("htpasswd"), HTPASSWD).map_err(Error::io("htpasswd"))?;
        let mut command = namespace.command(Tool::Registry.path().unwrap_or_else(|| "docker-registry".into()));
        command.arg("serve").arg(at("config.yml"));
        let process = Background::start(command)?;
        let authorization = private.then_some(AUTHORIZATION);
        let registry = Registry { namespace: namespace.clone(), address, authorization, _process: process, _dir: dir };
        run::eventually("an answering registry", run::SHORT, || {
            let answer = registry.ask("GET", "/v2/", &[], &[])?;
            expect("GET /v2/", 200, answer.status, answer.status == 200)
        })?;
        Ok(registry)
    }

    /// The name of an image in it.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Pushes an OCI archive as `repository:tag`; the digest of its manifest.
    pub fn push(&self, archive: &Path, repository: &str, tag: &str) -> Outcome<String> {
        let blobs = read(archive).map_err(Error::io(archive.display().to_string()))?;
        let text =
            |name: &str| -> Value { blobs.get(name).and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default() };
        let digest = text("index.json")["manifests"][0]["digest"].as_str().unwrap_or_default().to_owned();
        let path_of = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
        let manifest = text(&path_of(&digest));
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        for blob in layers.iter().chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().unwrap_or_default();
            let bytes = blobs.get(&path_of(digest)).map(Vec::as_slice).unwrap_or_default();
            let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], &[])?;
            expect("beginning an upload", 202, &begun.body, begun.status == 202)?;
            let location = begun.header("location").unwrap_or_default();
            let location = location.strip_prefix(&format!("http://{}", self.address)).unwrap_or(location);
            let sent = self.ask("PUT", &format!("{location}&digest={digest}"), &[OCTETS], bytes)?;
            expect("ending an upload", 201, &sent.body, sent.status == 201)?;
        }
        let kind = ("Content-Type", manifest["mediaType"].as_str().unwrap_or_default());
        let bytes = blobs.get(&path_of(&digest)).map(Vec::as_slice).unwrap_or_default();
        let sent = self.ask("PUT", &format!("/v2/{repository}/manifests/{tag}"), &[kind], bytes)?;
        expect("pushing a manifest", 201, &sent.body, sent.status == 201)?;
        Ok(digest)
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Outcome<http::Answer> {
        let mut headers = headers.to_vec();
        headers.extend(self.authorization.map(|a| ("Authorization", a)));
        let address = self.address;
        let answer = self.namespace.enter(|| http::request(address, method, path, &headers, body))?;
        answer.map_err(Error::io(format!("{method} {path}")))
    }
}

/// Every file of an archive.
fn read(archive: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(std::fs::File::open(archive)?).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(name, bytes);
    }
    Ok(files)
}
