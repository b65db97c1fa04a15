//! Importing image archives into a store: what comes in, and under which names.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironkeel_runtime::ImageStore;
use sha2::{Digest, Sha256};

/// What `docker save` writes of an image with one empty layer.
fn archive(dir: &Path, names: &[&str]) -> PathBuf {
    let layer = tar::Builder::new(Vec::new()).into_inner().unwrap();
    let hex: String = Sha256::digest(&layer).iter().map(|b| format!("{b:02x}")).collect();
    let config = serde_json::json!({"rootfs": {"type": "layers", "diff_ids": [format!("sha256:{hex}")]}}).to_string();
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]).to_string();
    let path = dir.join("archive.tar");
    let mut out = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let files =
        [("manifest.json", manifest.as_bytes()), ("config.json", config.as_bytes()), ("layer.tar", layer.as_slice())];
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        out.append_data(&mut header, name, bytes).unwrap();
    }
    out.finish().unwrap();
    path
}

#[tokio::test]
async fn an_import_tells_the_names_that_it_brought() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(ImageStore::open(&dir.path().join("store")).unwrap());
    let tags = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut known = Vec::new();
    for names in [&["example.com/a:1", "example.com/b:1"][..], &["example.com/c:1"], &[]] {
        let imported = store.import(&archive(dir.path(), names)).await.unwrap();
        assert_eq!(imported.len(), 1);
        assert_eq!(imported[0].tags.iter().cloned().collect::<Vec<_>>(), tags(names));
        known.extend(tags(names));
        assert_eq!(imported[0].image.tags.iter().cloned().collect::<Vec<_>>(), known);
    }
}
