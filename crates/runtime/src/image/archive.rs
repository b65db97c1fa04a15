//! Import of image archives: OCI layouts and `docker save` tars.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Take};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::store::{ImageRecord, ImageStore};
use super::unpack::{HashingReader, hex_digest};
use super::{ImageConfigFile, ImageName, headers};
use crate::error::{Error, blocking};

/// Longest JSON document of an archive or registry, in bytes.
pub(super) const MAX_DOCUMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Most memory that the names of an archive's files may take, in bytes.
const MAX_NAMES_BYTES: usize = 64 * 1024 * 1024;
/// What is kept of a file beside its name, in bytes.
const ENTRY_BYTES: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) annotations: HashMap<String, String>,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) os: String,
}

/// An image manifest, or an index of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    #[serde(default)]
    pub(super) config: Option<Descriptor>,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
    #[serde(default)]
    pub(super) manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// What this machine runs, in the OCI's words.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The manifest of an index that this machine runs.
pub(super) fn choose(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let fits = |d: &&Descriptor| {
        d.platform.as_ref().is_some_and(|p| p.architecture == architecture() && (p.os.is_empty() || p.os == "linux"))
    };
    manifests.iter().find(fits).or_else(|| manifests.iter().find(|d| d.platform.is_none()))
}

/// Where every file of the archive lies in it.
struct Archive {
    file: File,
    entries: HashMap<String, (u64, u64)>,
}

impl Archive {
    fn open(path: &Path) -> Result<Archive, Error> {
        let failed = || Error::path("reading the archive", path);
        let mut file = File::open(path).map_err(failed())?;
        let mut entries = HashMap::new();
        let mut names_bytes = 0;
        let mut archive = headers::Archive::new(&mut file);
        let mut found = archive.entries_with_seek().map_err(failed())?;
        while let Some(entry) = found.next().map_err(failed())? {
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            if entry.header().entry_type().is_file() {
                names_bytes += ENTRY_BYTES + name.len();
                if names_bytes > MAX_NAMES_BYTES {
                    return Err(Error::Invalid("the archive has too many files to be one of images".into()));
                }
                entries.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        Ok(Archive { file, entries })
    }

    fn entry(&self, name: &str) -> Result<Take<File>, Error> {
        let missing = || Error::Invalid(format!("the archive has no file {name}"));
        let (offset, size) = *self.entries.get(name).ok_or_else(missing)?;
        let mut file = self.file.try_clone().map_err(Error::io("reading the archive"))?;
        file.seek(SeekFrom::Start(offset)).map_err(Error::io("reading the archive"))?;
        Ok(file.take(size))
    }

    fn document(&self, name: &str) -> Result<String, Error> {
        let mut text = String::new();
        let entry = self.entry(name)?;
        entry.take(MAX_DOCUMENT_BYTES).read_to_string(&mut text).map_err(Error::io(format!("reading {name}")))?;
        Ok(text)
    }

    fn blob(&self, digest: &str) -> Result<String, Error> {
        let text = self.document(&blob_path(digest))?;
        check_digest("blob", digest, text.as_bytes())?;
        Ok(text)
    }
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

pub(super) fn digest_of(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(bytes);
    hex_digest(hash)
}

pub(super) fn check_digest(what: &str, expected: &str, bytes: &[u8]) -> Result<(), Error> {
    let found = digest_of(bytes);
    if found == expected { Ok(()) } else { Err(Error::Digest { what: what.into(), found, expected: expected.into() }) }
}

/// One image of an archive, before its layers are unpacked.
struct Found {
    tags: BTreeSet<String>,
    digests: BTreeSet<String>,
    config: String,
    /// File in the archive and digest when announced, the lowest first.
    layers: Vec<(String, Option<String>)>,
}

/// An image as it came from an archive.
pub struct Imported {
    /// The image, with all names that it has by now.
    pub image: Arc<ImageRecord>,
    /// The names that the archive gave it.
    pub tags: BTreeSet<String>,
}

impl ImageStore {
    /// Imports every image of an archive for this machine's architecture.
    pub async fn import(self: &Arc<Self>, path: &Path) -> Result<Vec<Imported>, Error> {
        let path = path.to_path_buf();
        let (archive, found) = blocking(move || {
            let archive = Archive::open(&path)?;
            let found = if archive.entries.contains_key("index.json") { oci(&archive)? } else { docker(&archive)? };
            Ok((Arc::new(archive), found))
        })
        .await?;
        let mut imported = Vec::new();
        for image in found {
            let tags = image.tags.clone();
            imported.push(Imported { image: self.import_one(archive.clone(), image).await?, tags });
        }
        Ok(imported)
    }

    async fn import_one(self: &Arc<Self>, archive: Arc<Archive>, image: Found) -> Result<Arc<ImageRecord>, Error> {
        let config: ImageConfigFile =
            serde_json::from_str(&image.config).map_err(Error::format("the image's configuration"))?;
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() || !diff_ids.iter().all(|d| super::reference::is_digest(d)) {
            return Err(Error::Invalid("the image's configuration and manifest name different layers".into()));
        }
        let reservation = self.reserve(&diff_ids);
        for (diff_id, (file, digest)) in diff_ids.iter().zip(image.layers) {
            let _making = reservation.lock(diff_id).await;
            if !self.has_layer(diff_id) {
                let (store, archive, diff_id) = (self.clone(), archive.clone(), diff_id.clone());
                blocking(move || {
                    let mut source = HashingReader::new(archive.entry(&file)?);
                    store.put_layer(&diff_id, &mut source)?;
                    std::io::copy(&mut source, &mut std::io::sink()).map_err(Error::io("reading a layer"))?;
                    match (digest, source.digest()) {
                        (Some(expected), found) if found != expected => {
                            Err(Error::Digest { what: "layer".into(), found, expected })
                        }
                        _ => Ok(()),
                    }
                })
                .await?;
            }
        }
        let size = diff_ids.iter().map(|d| self.layer_size(d)).sum();
        self.add(ImageRecord {
            id: digest_of(image.config.as_bytes()),
            tags: image.tags,
            digests: image.digests,
            layers: diff_ids,
            size,
            config: image.config,
            pinned: false,
        })
    }
}

fn oci(archive: &Archive) -> Result<Vec<Found>, Error> {
    let index: Index = serde_json::from_str(&archive.document("index.json")?).map_err(Error::format("index.json"))?;
    let mut images = Vec::new();
    for top in index.manifests {
        let mut descriptor = top.clone();
        let mut manifest: Manifest =
            serde_json::from_str(&archive.blob(&descriptor.digest)?).map_err(Error::format("the image's manifest"))?;
        if !manifest.manifests.is_empty() {
            let Some(chosen) = choose(&manifest.manifests).cloned() else { continue };
            manifest =
                serde_json::from_str(&archive.blob(&chosen.digest)?).map_err(Error::format("the image's manifest"))?;
            descriptor = chosen;
        }
        let config =
            manifest.config.ok_or_else(|| Error::Invalid("the image's manifest has no configuration".into()))?;
        let mut tags = BTreeSet::new();
        let mut digests = BTreeSet::new();
        let annotation = |key: &str| top.annotations.get(key).or_else(|| descriptor.annotations.get(key));
        let name = annotation("io.containerd.image.name").or_else(|| {
            // A bare tag says nothing about the repository.
            annotation("org.opencontainers.image.ref.name").filter(|n| n.contains(['/', ':']))
        });
        if let Some(name) = name {
            let name = ImageName::parse(name)?;
            tags.extend(name.tagged());
            digests.insert(format!("{}@{}", name.repository_name(), top.digest));
        }
        images.push(Found {
            tags,
            digests,
            config: archive.blob(&config.digest)?,
            layers: manifest.layers.iter().map(|l| (blob_path(&l.digest), Some(l.digest.clone()))).collect(),
        });
    }
    if images.is_empty() {
        return Err(Error::Invalid(format!("the archive has no image for {}", architecture())));
    }
    Ok(images)
}

fn docker(archive: &Archive) -> Result<Vec<Found>, Error> {
    let manifests: Vec<DockerManifest> =
        serde_json::from_str(&archive.document("manifest.json")?).map_err(Error::format("manifest.json"))?;
    let mut images = Vec::new();
    for manifest in manifests {
        let mut tags = BTreeSet::new();
        for name in manifest.repo_tags.unwrap_or_default() {
            tags.extend(ImageName::parse(&name)?.tagged());
        }
        images.push(Found {
            tags,
            digests: BTreeSet::new(),
            config: archive.document(&manifest.config)?,
            layers: manifest.layers.into_iter().map(|l| (l, None)).collect(),
        });
    }
    Ok(images)
}
