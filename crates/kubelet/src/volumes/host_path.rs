//! hostPath: the eight types, checked or created.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
};

/// Checks what is at `path` against the volume's type, and makes it where the type says so. The error says what
/// the user must mend.
pub(crate) fn check(path: &Path, kind: &str) -> Result<(), String> {
    let io = |error: std::io::Error| format!("{}: {error}", path.display());
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(path).map_err(io)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(io)?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::write(path, "").map_err(io)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(io)?;
        }
        _ => {}
    }
    let found = fs::metadata(path).map(|metadata| metadata.file_type());
    let is = |wanted: &str, test: fn(&fs::FileType) -> bool| match &found {
        Ok(kind) if test(kind) => Ok(()),
        _ => Err(format!("hostPath type check failed: {} is not {wanted}", path.display())),
    };
    match kind {
        "" => Ok(()),
        "Directory" | "DirectoryOrCreate" => is("a directory", fs::FileType::is_dir),
        "File" | "FileOrCreate" => is("a file", fs::FileType::is_file),
        "Socket" => is("a socket file", FileTypeExt::is_socket),
        "CharDevice" => is("a character device", FileTypeExt::is_char_device),
        "BlockDevice" => is("a block device", FileTypeExt::is_block_device),
        other => Err(format!("hostPath type {other:?} is unknown")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn types_are_checked_and_created() {
        let root = std::env::temp_dir().join(format!("ironkeel-hostpath-{}", rand::random::<u64>()));
        assert!(check(&root, "Directory").is_err());
        assert!(check(&root, "DirectoryOrCreate").is_ok());
        assert!(check(&root, "Directory").is_ok());
        assert!(check(&root, "File").is_err());
        assert!(check(&root.join("f"), "FileOrCreate").is_ok());
        assert!(check(Path::new("/dev/null"), "CharDevice").is_ok());
        assert!(check(Path::new("/dev/null"), "Socket").is_err());
        fs::remove_dir_all(&root).unwrap();
    }
}
