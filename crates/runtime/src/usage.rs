//! Bytes and files below a directory.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Allocated bytes and number of files below `root`, links not followed.
pub(crate) fn tree(root: &Path) -> (u64, u64) {
    let mut pending = vec![root.to_path_buf()];
    let (mut bytes, mut files) = (0, 0);
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            files += 1;
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    (bytes, files)
}
