//! Files that change all at once: a new timestamped directory, and a symbolic link `..data` that is swapped to it.
//! Readers see the old set or the new one, as upstream's AtomicWriter promises. Also ownership by fsGroup.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    path::{Component, Path},
};

use crate::{Error, error::FileContext};

/// The link to the current set.
const DATA: &str = "..data";
/// Its replacement, before the swap.
const DATA_NEW: &str = "..data_tmp";

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Projection {
    pub(crate) data: Vec<u8>,
    pub(crate) mode: u32,
    /// Owner, for tokens of pods whose containers share one user.
    pub(crate) uid: Option<u32>,
}

/// Files by their path in the volume.
pub(crate) type Payload = BTreeMap<String, Projection>;

/// Whether a path stays in the volume and off our own names.
pub(crate) fn is_safe(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with("..")
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Makes `directory` hold exactly `payload`. Returns whether anything changed.
pub(crate) fn write(directory: &Path, payload: &Payload, fs_group: Option<u32>) -> Result<bool, Error> {
    fs::create_dir_all(directory).file("creating", directory)?;
    let data = directory.join(DATA);
    let current = fs::read_link(&data).ok();
    if let Some(current) = &current
        && holds(&directory.join(current), payload)
    {
        return Ok(false);
    }
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let version = format!("{stamp}.{}", rand::random::<u32>());
    let target = directory.join(&version);
    fs::create_dir(&target).file("creating", &target)?;
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).file("setting the mode of", &target)?;
    for (path, file) in payload {
        let path = target.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).file("creating", parent)?;
        }
        fs::write(&path, &file.data).file("writing", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).file("setting the mode of", &path)?;
        if file.uid.is_some() {
            chown(&path, file.uid, None).file("setting the owner of", &path)?;
        }
    }
    if let Some(group) = fs_group {
        set_group(&target, group)?;
    }
    let new = directory.join(DATA_NEW);
    let _ = fs::remove_file(&new);
    symlink(&version, &new).file("linking", &new)?;
    fs::rename(&new, &data).file("renaming", &data)?;
    link_names(directory, payload)?;
    if let Some(old) = current {
        let old = directory.join(old);
        fs::remove_dir_all(&old).file("removing", &old)?;
    }
    Ok(true)
}

/// Whether the version holds the payload already. Owners and modes change only with the pod.
fn holds(version: &Path, payload: &Payload) -> bool {
    let mut files = Vec::new();
    list(version, version, &mut files);
    files.len() == payload.len()
        && payload.iter().all(|(path, file)| fs::read(version.join(path)).is_ok_and(|data| data == file.data))
}

fn list(root: &Path, directory: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(root, &path, files),
            _ => files.extend(path.strip_prefix(root).ok().map(|path| path.to_string_lossy().into_owned())),
        }
    }
}

/// User-visible names: links through `..data`, for the first part of each path.
fn link_names(directory: &Path, payload: &Payload) -> Result<(), Error> {
    let wanted: std::collections::BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in fs::read_dir(directory).file("reading", directory)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            fs::remove_file(entry.path()).file("removing", entry.path())?;
        }
    }
    for name in wanted {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).file("linking", &link)?;
        }
    }
    Ok(())
}

/// Gives the tree to a group: group ownership, group-writable as the owner, setgid directories.
pub(crate) fn set_group(path: &Path, group: u32) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).file("reading", path)?;
    lchown(path, None, Some(group)).file("setting the group of", path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.mode() & 0o7777;
    let mode = if metadata.is_dir() { mode | 0o2770 } else { mode | ((mode & 0o600) >> 3) };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).file("setting the mode of", path)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).file("reading", path)? {
            set_group(&entry.file("reading", path)?.path(), group)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| Projection { data: data.into(), mode: 0o640, uid: None };
        files.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    #[test]
    fn a_change_swaps_all_files_at_once_and_leaves_no_old_version() {
        let directory = std::env::temp_dir().join(format!("ironkeel-atomic-{}", rand::random::<u64>()));
        assert!(write(&directory, &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert!(!write(&directory, &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        let first = fs::read_link(directory.join(DATA)).unwrap();
        assert_eq!(fs::read_to_string(directory.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(directory.join("a")).unwrap().mode() & 0o777, 0o640);
        assert!(write(&directory, &payload(&[("a", "3")]), None).unwrap());
        assert_eq!(fs::read_to_string(directory.join("a")).unwrap(), "3");
        assert!(fs::symlink_metadata(directory.join("d")).is_err());
        assert!(!directory.join(first).exists());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn paths_stay_inside() {
        for (path, safe) in [("a/b", true), ("..a", false), ("a/../b", false), ("/a", false), ("", false)] {
            assert_eq!(is_safe(path), safe, "{path}");
        }
    }
}
