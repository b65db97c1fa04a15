//! Asks the linker to keep one copy of functions whose code is the same, and to settle addresses itself.
//!
//! Generic code made for many types often comes out alike. Rust's own toolchain brings a linker that sees it, and uses
//! it on x86-64 Linux; wherever another one may be in use, nothing is asked, and the program is larger.
//!
//! A program that can be loaded anywhere carries 128,000 relocations (3 MB), and each process that runs it, every pod's
//! shim among them, has 2.4 MB of tables of its own because the loader writes the addresses in. Ours is loaded where it
//! was linked for, as upstream's binaries are: libraries, stacks and heaps are still placed at random.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if bundled_linker().unwrap_or(false) {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}

/// Whether the release build of this program is linked by the toolchain's own lld.
fn bundled_linker() -> Option<bool> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let var = |name: &str| std::env::var(name).ok();
    if var("PROFILE")? != "release" || var("TARGET")? != TARGET || var("HOST")? != TARGET {
        return Some(false);
    }
    let chosen = ["linker=", "link-self-contained", "linker-flavor", "linker-features", "-fuse-ld"];
    let flags = var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if var("RUSTC_LINKER").is_some() || chosen.iter().any(|c| flags.contains(c)) {
        return Some(false);
    }
    let asked = Command::new(var("RUSTC")?).args(["--print", "sysroot"]).output().ok()?;
    let sysroot = String::from_utf8(asked.stdout).ok()?;
    Some(Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("bin/gcc-ld/ld.lld").is_file())
}
