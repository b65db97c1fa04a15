//! Paths inside a tree that is not ours to trust: symbolic links are followed, but never out of it.

use std::path::{Component, Path, PathBuf};

/// Links followed before a path counts as a loop, as the kernel's own limit.
const MAX_LINKS: usize = 40;

/// Where `path` leads inside `root`. Components that do not exist are taken literally.
pub(crate) fn resolve(root: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let mut pending: Vec<std::ffi::OsString> = parts(path);
    let mut inside: Vec<std::ffi::OsString> = Vec::new();
    let mut links = 0;
    while let Some(part) = pending.pop() {
        if part == ".." {
            inside.pop();
            continue;
        }
        let here = root.join(inside.iter().collect::<PathBuf>()).join(&part);
        match std::fs::symlink_metadata(&here) {
            Ok(m) if m.is_symlink() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(std::io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = std::fs::read_link(&here)?;
                if target.is_absolute() {
                    inside.clear();
                }
                pending.extend(parts(&target));
            }
            _ => inside.push(part),
        }
    }
    Ok(root.join(inside.iter().collect::<PathBuf>()))
}

/// Components in reverse, so that the next one is at the end.
fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    let keep = |c: Component<'_>| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(keep).collect()
}

/// Reads a file of the tree; an absent one is empty.
pub(crate) fn read(root: &Path, path: &str) -> std::io::Result<String> {
    use std::io::Read;
    /// Longest passwd or group file that is read, in bytes.
    const MAX_BYTES: u64 = 4 * 1024 * 1024;
    let mut text = String::new();
    let path = resolve(root, Path::new(path))?;
    if !std::fs::metadata(&path).is_ok_and(|m| m.is_file()) {
        return Ok(text);
    }
    std::fs::File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn links_never_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("a/absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../etc", root.join("a/b/relative")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        for (given, wanted) in [
            ("a/absolute/passwd", "etc/passwd"),
            ("/a/b/relative/passwd", "etc/passwd"),
            ("../../x", "x"),
            ("a/b/c", "a/b/c"),
        ] {
            assert_eq!(resolve(root, Path::new(given)).unwrap(), root.join(wanted));
        }
        assert!(resolve(root, Path::new("loop")).is_err());
    }
}
