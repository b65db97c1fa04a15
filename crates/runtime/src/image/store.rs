//! The content store: one record an image, one directory a layer.
//!
//! ```text
//! <root>/images/<64 hex of the configuration's digest>.json   the record
//! <root>/layers/<first 32 hex of the diff id>/                a lower directory
//! <root>/ingest/                                             whatever is half-made; emptied at start
//! ```
//! Layers and records appear by rename, so a crash leaves nothing half-there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::unpack;
use super::{ImageConfig, ImageConfigFile, ImageName};
use crate::error::Error;

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// `sha256:…` of its configuration: the image id.
    pub id: String,
    /// `registry/repository:tag`, each.
    pub tags: BTreeSet<String>,
    /// `registry/repository@sha256:…`, each.
    pub digests: BTreeSet<String>,
    /// Diff ids, the lowest first.
    pub layers: Vec<String>,
    /// Bytes of its layers, unpacked.
    pub size: u64,
    /// The configuration document as it came.
    pub config: String,
    /// Never removed by garbage collection.
    #[serde(default)]
    pub pinned: bool,
}

impl ImageRecord {
    pub(crate) fn config(&self) -> ImageConfig {
        serde_json::from_str::<ImageConfigFile>(&self.config).ok().and_then(|f| f.config).unwrap_or_default()
    }
}

/// The images of this node.
pub struct ImageStore {
    root: PathBuf,
    images: RwLock<BTreeMap<String, Arc<ImageRecord>>>,
    /// One lock a layer that is being made, so that it is made once.
    in_progress: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl ImageStore {
    /// Opens the store below `root`; makes it when it is not there.
    pub fn open(root: &Path) -> Result<ImageStore, Error> {
        let store = ImageStore { root: root.to_path_buf(), images: RwLock::default(), in_progress: Mutex::default() };
        let _ = std::fs::remove_dir_all(store.ingest_dir());
        for dir in [store.images_dir(), store.layers_dir(), store.ingest_dir()] {
            std::fs::create_dir_all(&dir).map_err(Error::path("creating", &dir))?;
        }
        let dir = store.images_dir();
        for entry in std::fs::read_dir(&dir).map_err(Error::path("reading", &dir))? {
            let path = entry.map_err(Error::path("reading", &dir))?.path();
            if path.extension().is_some_and(|e| e == "json") {
                let bytes = std::fs::read(&path).map_err(Error::path("reading", &path))?;
                let record: ImageRecord =
                    serde_json::from_slice(&bytes).map_err(Error::format(path.display().to_string()))?;
                if record.layers.iter().all(|l| store.layer_dir(l).is_dir()) {
                    store.images.write().insert(record.id.clone(), Arc::new(record));
                }
            }
        }
        store.remove_unused_layers();
        Ok(store)
    }

    fn images_dir(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn ingest_dir(&self) -> PathBuf {
        self.root.join("ingest")
    }

    fn layer_dir(&self, diff_id: &str) -> PathBuf {
        let hex = diff_id.trim_start_matches("sha256:");
        self.layers_dir().join(hex.get(..32).unwrap_or(hex))
    }

    /// Lower directories of an image, the uppermost first: overlayfs' order.
    pub(crate) fn lower_dirs(&self, image: &ImageRecord) -> Vec<PathBuf> {
        image.layers.iter().rev().map(|l| self.layer_dir(l)).collect()
    }

    /// Every image, by id.
    pub fn list(&self) -> Vec<Arc<ImageRecord>> {
        self.images.read().values().cloned().collect()
    }

    /// Finds an image by id (whole, or a unique beginning of it), tag or digest.
    pub fn find(&self, name: &str) -> Option<Arc<ImageRecord>> {
        let images = self.images.read();
        if let Some(image) = images.get(name).or_else(|| images.get(&format!("sha256:{name}"))) {
            return Some(image.clone());
        }
        if let Ok(parsed) = ImageName::parse(name) {
            let (tag, digest) = (parsed.tagged(), parsed.digested());
            let known = |i: &&Arc<ImageRecord>| {
                tag.as_ref().is_some_and(|t| i.tags.contains(t))
                    || digest.as_ref().is_some_and(|d| i.digests.contains(d))
            };
            if let Some(image) = images.values().find(known) {
                return Some(image.clone());
            }
        }
        let hex = name.trim_start_matches("sha256:");
        if hex.len() < 12 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut matching = images.values().filter(|i| i.id["sha256:".len()..].starts_with(hex));
        matching.next().filter(|_| matching.next().is_none()).cloned()
    }

    /// Adds an image, or more names of one. A tag moves from the image that had it.
    pub(super) fn add(&self, mut record: ImageRecord) -> Result<Arc<ImageRecord>, Error> {
        let mut images = self.images.write();
        if let Some(known) = images.get(&record.id) {
            record.tags.extend(known.tags.iter().cloned());
            record.digests.extend(known.digests.iter().cloned());
            record.pinned |= known.pinned;
        }
        let robbed: Vec<Arc<ImageRecord>> =
            images.values().filter(|i| i.id != record.id && !i.tags.is_disjoint(&record.tags)).cloned().collect();
        for image in robbed {
            let mut image = ImageRecord::clone(&image);
            image.tags.retain(|t| !record.tags.contains(t));
            self.write(&image)?;
            images.insert(image.id.clone(), Arc::new(image));
        }
        self.write(&record)?;
        let record = Arc::new(record);
        images.insert(record.id.clone(), record.clone());
        Ok(record)
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.images_dir().join(format!("{}.json", id.trim_start_matches("sha256:")))
    }

    fn write(&self, record: &ImageRecord) -> Result<(), Error> {
        let bytes = serde_json::to_vec(record).map_err(Error::format("the image's record"))?;
        write_atomically(&self.record_path(&record.id), &bytes)
    }

    /// Removes an image with all its names, and the layers that no other image has. An absent image
    /// is a success, as the CRI wants it.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let Some(image) = self.find(name) else { return Ok(()) };
        self.images.write().remove(&image.id);
        let path = self.record_path(&image.id);
        std::fs::remove_file(&path).map_err(Error::path("removing", &path))?;
        self.remove_unused_layers();
        Ok(())
    }

    fn remove_unused_layers(&self) {
        let in_progress = self.in_progress.lock();
        let images = self.images.read();
        let used: HashSet<PathBuf> = images.values().flat_map(|i| &i.layers).map(|l| self.layer_dir(l)).collect();
        let making: HashSet<PathBuf> = in_progress.keys().map(|l| self.layer_dir(l)).collect();
        for entry in std::fs::read_dir(self.layers_dir()).into_iter().flatten().flatten() {
            let path = entry.path();
            if !used.contains(&path) && !making.contains(&path) {
                // First out of the way: a half-removed layer must never look like a whole one.
                let doomed = self.ingest_dir().join(uuid::Uuid::new_v4().simple().to_string());
                if std::fs::rename(&path, &doomed).is_ok() {
                    let _ = std::fs::remove_dir_all(&doomed);
                }
            }
        }
    }

    /// Keeps the layers of an image from being removed while the guard lives, and makes each once.
    pub(super) fn reserve(self: &Arc<Self>, layers: &[String]) -> LayerReservation {
        let mut in_progress = self.in_progress.lock();
        let locks = layers.iter().map(|l| (l.clone(), in_progress.entry(l.clone()).or_default().clone())).collect();
        LayerReservation { store: self.clone(), locks }
    }

    /// Whether a layer is there, unpacked.
    pub(super) fn has_layer(&self, diff_id: &str) -> bool {
        self.layer_dir(diff_id).is_dir()
    }

    /// Unpacks a layer. The caller holds its lock. Answers the unpacked size.
    pub(super) fn put_layer(&self, diff_id: &str, source: impl Read + Send) -> Result<u64, Error> {
        let temporary = self.ingest_dir().join(uuid::Uuid::new_v4().simple().to_string());
        std::fs::create_dir(&temporary).map_err(Error::path("creating", &temporary))?;
        let done = unpack::unpack(source, &temporary).and_then(|(found, size)| {
            if found != diff_id {
                return Err(Error::Digest { what: "layer".into(), found, expected: diff_id.into() });
            }
            let size_file = self.size_path(diff_id);
            std::fs::write(&size_file, size.to_string()).map_err(Error::path("writing", &size_file))?;
            let target = self.layer_dir(diff_id);
            std::fs::rename(&temporary, &target).map_err(Error::path("renaming a layer to", &target))?;
            Ok(size)
        });
        if done.is_err() {
            let _ = std::fs::remove_dir_all(&temporary);
        }
        done
    }

    fn size_path(&self, diff_id: &str) -> PathBuf {
        self.images_dir().join(format!("{}.size", diff_id.trim_start_matches("sha256:")))
    }

    /// Bytes of a layer's files.
    pub(super) fn layer_size(&self, diff_id: &str) -> u64 {
        std::fs::read_to_string(self.size_path(diff_id)).ok().and_then(|t| t.parse().ok()).unwrap_or(0)
    }

    /// Bytes and files below the store.
    pub(crate) fn usage(&self) -> (u64, u64) {
        crate::usage::tree(&self.layers_dir())
    }
}

/// See [`ImageStore::reserve`].
pub(super) struct LayerReservation {
    store: Arc<ImageStore>,
    locks: Vec<(String, Arc<tokio::sync::Mutex<()>>)>,
}

impl LayerReservation {
    /// Waits for whoever makes this layer now.
    pub(super) async fn lock(&self, diff_id: &str) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        let lock = self.locks.iter().find(|(l, _)| l == diff_id)?.1.clone();
        Some(lock.lock_owned().await)
    }
}

impl Drop for LayerReservation {
    fn drop(&mut self) {
        let mut in_progress = self.store.in_progress.lock();
        for (layer, lock) in self.locks.drain(..) {
            drop(lock);
            if in_progress.get(&layer).is_some_and(|l| Arc::strong_count(l) == 1) {
                in_progress.remove(&layer);
            }
        }
    }
}

/// Writes a file beside its place and renames it there.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let write = || -> std::io::Result<()> {
        use std::io::Write;
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(Error::path("writing", path))
}
