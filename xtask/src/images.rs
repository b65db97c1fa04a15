//! `cargo xtask images`: OCI archives from what the machine and this repository have.
//!
//! `busybox` from Debian's busybox-static, `guestbook` from `examples/guestbook/server`, linked
//! statically. The archives are OCI layouts; `ironkeel image import` and other runtimes read them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Packs every image into `out`.
pub(crate) fn run(root: &Path, out: &Path) -> Result<()> {
    let out = if out.is_absolute() { out.to_owned() } else { root.join(out) };
    std::fs::create_dir_all(&out)?;
    let busybox = busybox()?;
    let shell = Layer::default()
        .file("bin/busybox", &busybox)?
        .applets(&busybox)?
        .folder("tmp", 0o1777)?
        .folder("etc", 0o755)?;
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
    let shell = shell.bytes("etc/passwd", passwd, 0o644)?.bytes("etc/group", b"root:x:0:\nnobody:x:65534:\n", 0o644)?;
    pack(&out, "docker.io/library/busybox:1", &shell, &json!({ "Cmd": ["sh"] }))?;
    let server = guestbook(root)?;
    for version in ["1", "2"] {
        let layer =
            shell.clone().file("bin/guestbook", &server)?.bytes("etc/guestbook-version", version.as_bytes(), 0o644)?;
        pack(&out, &format!("example.com/guestbook:{version}"), &layer, &json!({ "Entrypoint": ["/bin/guestbook"] }))?;
    }
    Ok(())
}

/// The statically linked busybox of this machine.
fn busybox() -> Result<PathBuf> {
    let candidates = ["/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/bin/busybox"];
    candidates
        .iter()
        .map(PathBuf::from)
        .find(|p| p.is_file())
        .context("no busybox here: apt-get install busybox-static")
}

fn guestbook(root: &Path) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let triple = host_triple()?;
    let status = std::process::Command::new(env!("CARGO"))
        .args([
            "rustc",
            "--quiet",
            "--release",
            "--package",
            "guestbook",
            "--target",
            &triple,
            "--",
            "-Ctarget-feature=+crt-static",
        ])
        .current_dir(root)
        .status()?;
    if !status.success() {
        bail!("building the guestbook server failed");
    }
    Ok(target.join(triple).join("release/guestbook"))
}

fn host_triple() -> Result<String> {
    let output = std::process::Command::new("rustc").arg("-vV").output().context("running rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(line.to_owned())
}

/// One layer under construction.
#[derive(Clone, Default)]
struct Layer {
    tar: Vec<u8>,
    folders: Vec<String>,
}

impl Layer {
    fn entry(&mut self, path: &str, kind: tar::EntryType, mode: u32, link: Option<&str>, data: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_path(path)?;
        if let Some(link) = link {
            header.set_link_name(link)?;
        }
        header.set_cksum();
        let mut builder = tar::Builder::new(&mut self.tar);
        builder.append(&header, data)?;
        // Without the closing zero blocks: more entries follow.
        std::mem::forget(builder);
        Ok(())
    }

    fn folder(mut self, path: &str, mode: u32) -> Result<Self> {
        if !self.folders.contains(&path.to_owned()) {
            self.entry(path, tar::EntryType::Directory, mode, None, &[])?;
            self.folders.push(path.to_owned());
        }
        Ok(self)
    }

    fn bytes(self, path: &str, data: &[u8], mode: u32) -> Result<Self> {
        let parent = Path::new(path).parent().and_then(Path::to_str).unwrap_or_default().to_owned();
        let mut layer = if parent.is_empty() { self } else { self.folder(&parent, 0o755)? };
        layer.entry(path, tar::EntryType::Regular, mode, None, data)?;
        Ok(layer)
    }

    fn file(self, path: &str, source: &Path) -> Result<Self> {
        let data = std::fs::read(source).with_context(|| format!("reading {}", source.display()))?;
        self.bytes(path, &data, 0o755)
    }

    /// A link to busybox for each of its commands.
    fn applets(mut self, busybox: &Path) -> Result<Self> {
        let output = std::process::Command::new(busybox).arg("--list").output()?;
        for applet in String::from_utf8_lossy(&output.stdout).lines().filter(|a| *a != "busybox") {
            self.entry(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, Some("/bin/busybox"), &[])?;
        }
        Ok(self)
    }
}

fn pack(out: &Path, name: &str, layer: &Layer, config: &Value) -> Result<()> {
    let mut blobs: Vec<(String, Vec<u8>)> = Vec::new();
    let mut blob = |data: Vec<u8>| {
        let digest = hex(&Sha256::digest(&data));
        let descriptor = (format!("sha256:{digest}"), data.len());
        blobs.push((format!("blobs/sha256/{digest}"), data));
        descriptor
    };
    let mut plain = layer.tar.clone();
    plain.resize(plain.len() + 1024, 0);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&plain)?;
    let (layer_digest, layer_size) = blob(gzip.finish()?);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mut config = config.clone();
    config["Env"] = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    let image = json!({
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex(&Sha256::digest(&plain)))] },
    });
    let (config_digest, config_size) = blob(serde_json::to_vec(&image)?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer_digest, "size": layer_size }],
    });
    let (manifest_digest, manifest_size) = blob(serde_json::to_vec(&manifest)?);
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest_digest,
            "size": manifest_size,
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rsplit(':').next().unwrap_or_default(),
            },
        }],
    });
    blobs.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    blobs.push(("index.json".into(), serde_json::to_vec(&index)?));
    let file = name.rsplit('/').next().unwrap_or(name).replace(':', "-") + ".tar";
    let path = out.join(file);
    let mut archive = tar::Builder::new(std::fs::File::create(&path)?);
    for (at, data) in blobs {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(data.len() as u64);
        archive.append_data(&mut header, at, data.as_slice())?;
    }
    archive.finish()?;
    println!("{name}\t{}", path.display());
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
