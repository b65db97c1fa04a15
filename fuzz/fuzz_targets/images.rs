//! Image archives: manifests, configurations and layers of a stranger. Nothing panics, nothing is written outside of
//! the image store, and nothing grows without bound.
//!
//! The first byte chooses what the input is: the archive, or one part of an otherwise sound one: a layer (plain or
//! compressed), the configuration, the manifest, the index, or what `docker save` lists.
#![no_main]

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use ironkeel_runtime::ImageStore;
use libfuzzer_sys::fuzz_target;
use nix::sched::CloneFlags;
use sha2::{Digest, Sha256};

/// What stands beside the store, and must not change.
const CANARY: &[u8] = b"untouched";

fn digest(bytes: &[u8]) -> String {
    let hash: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hash}")
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).expect("an archive in memory");
    }
    builder.into_inner().expect("an archive in memory")
}

fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    (format!("blobs/{}", digest(bytes).replace(':', "/")), bytes.to_vec())
}

/// An archive whose one part is the input, and everything else sound.
fn build(choice: u8, data: &[u8]) -> Vec<u8> {
    let layer = if choice == 1 { data } else { b"\0".as_slice() };
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        digest(layer)
    );
    let config = if choice == 2 { data.to_vec() } else { config.into_bytes() };
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":{}}},"layers":[{{"digest":"{}","size":{}}}]}}"#,
        digest(&config),
        config.len(),
        digest(layer),
        layer.len()
    );
    let manifest = if choice == 3 { data.to_vec() } else { manifest.into_bytes() };
    let index = format!(
        r#"{{"manifests":[{{"digest":"{}","annotations":{{"org.opencontainers.image.ref.name":"example.com/x:1"}}}}]}}"#,
        digest(&manifest)
    );
    let index = if choice == 4 { data.to_vec() } else { index.into_bytes() };
    if choice == 5 {
        return archive(&[("l".into(), layer.to_vec()), ("c".into(), config), ("manifest.json".into(), data.to_vec())]);
    }
    archive(&[blob(layer), blob(&config), blob(&manifest), ("index.json".into(), index)])
}

/// One archive after another, imported into one store.
struct Fixture {
    archives: Sender<Vec<u8>>,
    done: Receiver<()>,
}

thread_local! {
    static FIXTURE: RefCell<Option<Fixture>> = const { RefCell::new(None) };
}

/// What an archive makes the importer do as root could reach the host, so then it happens below a root folder of its
/// own. Only this thread and those that it starts are moved there: the fuzzer reads and writes where it was told.
fn fixture() -> Fixture {
    let (archives, inbox) = channel::<Vec<u8>>();
    let (tell, done) = channel();
    std::thread::spawn(move || {
        let mut root = ironkeel_fuzz::scratch("images");
        if nix::unistd::geteuid().is_root() {
            nix::sched::unshare(CloneFlags::CLONE_FS).expect("a view of the file system of its own");
            nix::unistd::chroot(&root).expect("a root of its own");
            std::env::set_current_dir("/").expect("the root");
            root = "/".into();
        }
        std::fs::write(root.join("canary"), CANARY).expect("a file");
        let runtime = ironkeel_fuzz::runtime();
        for archive in inbox {
            let path = root.join("archive.tar");
            std::fs::write(&path, archive).expect("a file");
            let store = Arc::new(ImageStore::open(&root.join("images")).expect("an image store"));
            if let Ok(images) = runtime.block_on(store.import(&path)) {
                for imported in images {
                    let id = &imported.image.id;
                    assert!(store.find(id).is_some(), "what was imported is there");
                    store.remove(id).expect("what was imported is removed");
                }
            }
            outside(&root);
            // What an input leaves behind is not the next one's.
            std::fs::remove_dir_all(root.join("images")).expect("the store's folder is removed");
            if tell.send(()).is_err() {
                return;
            }
        }
    });
    Fixture { archives, done }
}

/// Fails when something stands beside the store that was not there, or is not as it was.
fn outside(root: &Path) {
    let mut names: Vec<_> = std::fs::read_dir(root).expect("the root").flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["archive.tar", "canary", "images"], "something was written outside");
    assert_eq!(std::fs::read(root.join("canary")).expect("the canary"), CANARY);
}

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let bytes = match first % 6 {
        0 => data.to_vec(),
        choice => build(choice, data),
    };
    FIXTURE.with_borrow_mut(|slot| {
        let Fixture { archives, done } = slot.get_or_insert_with(fixture);
        archives.send(bytes).expect("the importer is there");
        done.recv().expect("the importer is there");
    });
});
