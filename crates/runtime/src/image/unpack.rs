//! A layer's archive becomes a directory that overlayfs can use as a lower one.
//!
//! Nothing an archive says leads out of the directory: names are taken apart, and links that an
//! earlier entry made are followed inside it only.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::EntryType;

use super::{headers::Archive, whiteout};
use crate::error::Error;
use crate::rootfs;

/// Largest size of a layer's sparse files together, in bytes: their holes cost the archive nothing.
const MAX_SPARSE_BYTES: u64 = 64 << 30;
/// How much of a sparse file is looked at for being a hole, in bytes.
const HOLE_BYTES: usize = 64 * 1024;
/// Names a PAX record uses for extended attributes.
const XATTR_RECORD: &str = "SCHILY.xattr.";

/// Hashes what is read through it.
pub(super) struct HashingReader<R> {
    inner: R,
    hash: Sha256,
    pub(super) bytes: u64,
}

impl<R: Read> HashingReader<R> {
    pub(super) fn new(inner: R) -> Self {
        HashingReader { inner, hash: Sha256::new(), bytes: 0 }
    }

    pub(super) fn digest(&mut self) -> String {
        hex_digest(std::mem::take(&mut self.hash))
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

/// `sha256:…` of a finished hash.
pub(super) fn hex_digest(hash: Sha256) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("sha256:");
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Decompresses by the stream's first bytes: gzip, zstd or none.
pub(super) fn decompress<'a>(mut source: impl Read + Send + 'a) -> std::io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = [0; 4];
    let mut have = 0;
    while have < magic.len() {
        match source.read(&mut magic[have..])? {
            0 => break,
            n => have += n,
        }
    }
    let whole = std::io::Cursor::new(magic[..have].to_vec()).chain(source);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

/// Unpacks a layer (compressed or not) into an empty directory; answers its diff id and unpacked size.
pub(super) fn unpack(source: impl Read + Send, into: &Path) -> Result<(String, u64), Error> {
    let failed = || Error::path("unpacking a layer into", into);
    let mut reader = HashingReader::new(decompress(source).map_err(failed())?);
    let (mut size, mut sparse_bytes) = (0, 0_u64);
    let mut directories = Vec::new();
    let mut archive = Archive::new(&mut reader);
    let mut entries = archive.entries().map_err(failed())?;
    while let Some(mut entry) = entries.next().map_err(failed())? {
        let name = entry.path_bytes().into_owned();
        size = entry.size().saturating_add(size);
        let in_entry = || Error::io(format!("unpacking {}", String::from_utf8_lossy(&name)));
        if entry.header().entry_type().is_gnu_sparse() {
            sparse_bytes = sparse_bytes.saturating_add(entry.size());
            if sparse_bytes > MAX_SPARSE_BYTES {
                return Err(in_entry()(invalid("the layer's sparse files are too large")));
            }
        }
        place(&mut entry, into, &mut directories).map_err(in_entry())?;
    }
    // Children change a directory's time, so directories get theirs last.
    for (path, time) in directories.into_iter().rev() {
        whiteout::set_times(&path, time).map_err(failed())?;
    }
    // The digest is of the whole stream, past the archive's end.
    std::io::copy(&mut reader, &mut std::io::sink()).map_err(failed())?;
    Ok((reader.digest(), size))
}

fn place<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    root: &Path,
    directories: &mut Vec<(PathBuf, u64)>,
) -> std::io::Result<()> {
    let kind = entry.header().entry_type();
    if matches!(kind, EntryType::XGlobalHeader) {
        return Ok(());
    }
    let given = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
    let mut clean = PathBuf::new();
    for component in given.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => return Err(invalid("the name has ..")),
            _ => {}
        }
    }
    let Some(name) = clean.file_name().map(OsStr::to_owned) else {
        // The root itself: only its owner and mode.
        return finish(entry, root, kind, directories);
    };
    let parent = rootfs::resolve(root, clean.parent().unwrap_or(Path::new("")))?;
    std::fs::create_dir_all(&parent)?;
    if name.as_bytes() == whiteout::OPAQUE {
        return whiteout::make_opaque(&parent);
    }
    if let Some(hidden) = name.as_bytes().strip_prefix(whiteout::PREFIX) {
        if hidden.is_empty() || hidden == b"." || hidden == b".." || hidden.contains(&b'/') {
            return Err(invalid("a whiteout of nothing"));
        }
        let path = parent.join(OsStr::from_bytes(hidden));
        remove(&path)?;
        return whiteout::hide(&path);
    }
    let path = parent.join(&name);
    if !(kind.is_dir() && std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir())) {
        remove(&path)?;
    }
    make(entry, root, &path, kind)?;
    finish(entry, &path, kind, directories)
}

fn make<R: Read>(entry: &mut tar::Entry<'_, R>, root: &Path, path: &Path, kind: EntryType) -> std::io::Result<()> {
    match kind {
        EntryType::Directory => match std::fs::create_dir(path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        },
        EntryType::Regular | EntryType::Continuous => {
            let mut file = File::create_new(path)?;
            std::io::copy(entry, &mut file)?;
            file.flush()
        }
        EntryType::GNUSparse => {
            let size = entry.size();
            copy_with_holes(entry, size, &File::create_new(path)?)
        }
        EntryType::Symlink => {
            let target = entry.link_name_bytes().ok_or_else(|| invalid("a link without a target"))?;
            std::os::unix::fs::symlink(OsStr::from_bytes(&target), path)
        }
        EntryType::Link => {
            let target = entry.link_name_bytes().ok_or_else(|| invalid("a link without a target"))?.into_owned();
            let target = Path::new(OsStr::from_bytes(&target));
            // The target's last part may itself be a link; the hard link is then to that.
            let parent = rootfs::resolve(root, target.parent().unwrap_or(Path::new("")))?;
            let name = target.file_name().ok_or_else(|| invalid("a link without a target"))?;
            std::fs::hard_link(parent.join(name), path)
        }
        EntryType::Char | EntryType::Block => {
            let (major, minor) = (entry.header().device_major()?, entry.header().device_minor()?);
            let device = libc::makedev(major.unwrap_or(0), minor.unwrap_or(0));
            let kind = if kind == EntryType::Char { libc::S_IFCHR } else { libc::S_IFBLK };
            whiteout::make_node(path, kind, device)
        }
        EntryType::Fifo => whiteout::make_node(path, libc::S_IFIFO, 0),
        other => Err(invalid(&format!("unknown entry type {other:?}"))),
    }
}

/// Writes what is there, and leaves out what is only zeros.
fn copy_with_holes(from: &mut impl Read, size: u64, file: &File) -> std::io::Result<()> {
    let mut buffer = vec![0; HOLE_BYTES];
    let mut at = 0;
    while at < size {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if buffer[..n].iter().any(|b| *b != 0) {
            file.write_all_at(&buffer[..n], at)?;
        }
        at += n as u64;
    }
    file.set_len(size)
}

/// Owner, mode, attributes and time, in the order in which the kernel keeps them.
fn finish<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    path: &Path,
    kind: EntryType,
    directories: &mut Vec<(PathBuf, u64)>,
) -> std::io::Result<()> {
    if kind == EntryType::Link {
        return Ok(());
    }
    let header = entry.header();
    let (uid, gid, mode, time) = (header.uid()?, header.gid()?, header.mode()?, header.mtime().unwrap_or(0));
    std::os::unix::fs::lchown(path, Some(uid as u32), Some(gid as u32))?;
    if kind != EntryType::Symlink {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7777))?;
    }
    let mut attributes = Vec::new();
    if let Some(records) = entry.pax_extensions()? {
        for record in records.flatten() {
            if let Some(name) = record.key().ok().and_then(|k| k.strip_prefix(XATTR_RECORD)) {
                attributes.push((CString::new(name)?, record.value_bytes().to_vec()));
            }
        }
    }
    for (name, value) in attributes {
        // Not every file system has every attribute; upstream's runtimes go on without, too.
        match whiteout::set_attribute(path, &name, &value) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTSUP | libc::EPERM)) => {}
            other => other?,
        }
    }
    if kind.is_dir() {
        directories.push((path.to_path_buf(), time));
        Ok(())
    } else {
        whiteout::set_times(path, time)
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn invalid(why: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn archive(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        fill(&mut builder);
        builder.into_inner().unwrap()
    }

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(nix::unistd::getuid().as_raw().into());
        header.set_gid(nix::unistd::getgid().as_raw().into());
        header
    }

    #[test]
    fn nothing_is_written_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let bytes = archive(|b| {
            b.append_link(&mut header(EntryType::Symlink, 0), "link", &outside).unwrap();
            b.append_data(&mut header(EntryType::Regular, 1), "link/file", &b"x"[..]).unwrap();
        });
        unpack(&bytes[..], &root).unwrap();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        // A name with .. cannot be written by the builder, so it is patched in.
        let mut bytes = archive(|b| b.append_data(&mut header(EntryType::Regular, 1), "aa/file", &b"x"[..]).unwrap());
        bytes[..2].copy_from_slice(b"..");
        let mut fixed = tar::Header::from_byte_slice(&bytes[..512]).clone();
        fixed.set_cksum();
        bytes[..512].copy_from_slice(fixed.as_bytes());
        assert!(unpack(&bytes[..], &root).unwrap_err().to_string().contains("file"));
        assert!(!dir.path().join("file").exists());
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<u64, String>) {
        let dir = tempfile::tempdir().unwrap();
        let outcome = unpack(bytes, dir.path()).map(|(_, size)| size).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("{error}: {source}")
        });
        (dir, outcome)
    }

    #[test]
    fn a_header_does_not_take_all_memory() {
        let with_record = |bytes: usize| {
            let value = vec![b'x'; bytes];
            archive(|b| {
                b.append_pax_extensions([("comment", value.as_slice())]).unwrap();
                b.append_data(&mut header(EntryType::Regular, 1), "file", &b"x"[..]).unwrap();
            })
        };
        let (dir, outcome) = unpacked(&with_record(900 << 10));
        assert_eq!(outcome, Ok(1));
        assert!(dir.path().join("file").exists());
        let (_dir, outcome) = unpacked(&with_record(2 << 20));
        assert!(outcome.clone().unwrap_err().contains("header is longer than"), "{outcome:?}");
        // The same of GNU's long names.
        let mut long = Vec::new();
        let mut name = header(EntryType::GNULongName, 2 << 20);
        name.set_cksum();
        long.extend_from_slice(name.as_bytes());
        long.resize(long.len() + (2 << 20), b'n');
        let (_dir, outcome) = unpacked(&long);
        assert!(outcome.clone().unwrap_err().contains("header is longer than"), "{outcome:?}");
    }

    #[test]
    fn what_a_file_holds_is_no_header() {
        let data = vec![7; 3 << 20];
        let bytes = archive(|b| {
            b.append_data(&mut header(EntryType::Regular, data.len() as u64), "a", data.as_slice()).unwrap();
            // Its data is not read when it only hides something.
            b.append_data(&mut header(EntryType::Regular, data.len() as u64), ".wh.gone", data.as_slice()).unwrap();
            b.append_data(&mut header(EntryType::Regular, 1), "b", &b"x"[..]).unwrap();
        });
        if !nix::unistd::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let (dir, outcome) = unpacked(&bytes);
        outcome.unwrap();
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), data);
        assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"x");
    }

    /// A sparse file of that size with one byte at its beginning, and as many bytes in the archive as it says.
    fn sparse_file(size: u64, said: u64) -> Vec<u8> {
        let mut header = header(EntryType::GNUSparse, said);
        header.set_path("sparse").unwrap();
        let gnu = header.as_gnu_mut().unwrap();
        // GNU's form of numbers that are too large for octal digits.
        let number = |field: &mut [u8; 12], value: u64| {
            field[0] = 0x80;
            field[4..].copy_from_slice(&value.to_be_bytes());
        };
        number(&mut gnu.sparse[0].offset, 0);
        number(&mut gnu.sparse[0].numbytes, 512);
        number(&mut gnu.sparse[1].offset, size);
        number(&mut gnu.sparse[1].numbytes, 0);
        number(&mut gnu.realsize, size);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.push(b'x');
        bytes.resize(512 * 2, 0);
        bytes
    }

    /// An archive of sparse files.
    fn sparse(sizes: &[u64]) -> Vec<u8> {
        let files = sizes.iter().flat_map(|size| sparse_file(*size, 512));
        files.chain([0; 512 * 2]).collect()
    }

    #[test]
    fn a_sparse_file_has_one_size() {
        let mut bytes = archive(|b| b.append_pax_extensions([("size", &b"512"[..])]).unwrap());
        bytes.truncate(512 * 2);
        bytes.extend(sparse_file(512, 8 << 30));
        // What follows would be taken for the file's data, and need no bound.
        let mut name = header(EntryType::GNULongName, 4 << 30);
        name.set_cksum();
        bytes.extend_from_slice(name.as_bytes());
        bytes.resize(bytes.len() + (4 << 20), b'n');
        let (_dir, outcome) = unpacked(&bytes);
        assert!(outcome.clone().unwrap_err().contains("record of its size"), "{outcome:?}");
    }

    #[test]
    fn holes_take_no_room() {
        use std::os::unix::fs::MetadataExt;
        let (dir, outcome) = unpacked(&sparse(&[256 << 20]));
        outcome.unwrap();
        let file = std::fs::metadata(dir.path().join("sparse")).unwrap();
        assert_eq!(file.len(), 256 << 20);
        assert!(file.blocks() * 512 < 1 << 20, "{} blocks", file.blocks());
        // They are bounded together.
        for sizes in [&[MAX_SPARSE_BYTES + 512][..], &[1 << 20, MAX_SPARSE_BYTES - (1 << 19)]] {
            let (_dir, outcome) = unpacked(&sparse(sizes));
            assert!(outcome.clone().unwrap_err().contains("sparse files are too large"), "{outcome:?}");
        }
    }
}
