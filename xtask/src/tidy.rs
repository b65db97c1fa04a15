//! `cargo xtask tidy`: the rules of the house that no compiler knows.
//!
//! Crate arrows (ARCHITECTURE.md draws them), module documentation, workspace lints, and where
//! `unsafe` may stand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What each crate may depend on within the workspace. A missing row fails.
const ARROWS: &[(&str, &[&str])] = &[
    // 0: pure. No tokio, no I/O.
    ("schema", &[]),
    ("object", &["schema"]),
    ("codec", &["schema", "object"]),
    ("patch", &["schema", "object"]),
    ("expr", &["object"]),
    ("openapi", &["schema", "object"]),
    ("kinds", &["schema", "object", "expr"]),
    ("semantics", &[]),
    ("metrics", &[]),
    // 1: kits.
    ("trace", &[]),
    ("store", &[]),
    ("embedded", &["store"]),
    ("etcd", &["store", "trace"]),
    ("encryption", &["store"]),
    ("client", &[]),
    ("informer", &["client", "metrics"]),
    ("journal", &[]),
    ("streaming", &[]),
    ("webhook", &["trace"]),
    ("netlink", &[]),
    ("cri", &[]),
    ("cni", &["netlink", "journal", "client", "informer"]),
    // 2: server.
    ("registry", &["schema", "object", "codec", "patch", "kinds", "store"]),
    ("auth", &["schema", "object", "expr", "kinds"]),
    ("admission", &["schema", "object", "codec", "patch", "expr", "kinds", "registry", "auth", "webhook", "trace"]),
    ("fairness", &["object", "metrics", "auth"]),
    ("audit", &["object", "codec", "metrics"]),
    (
        "apiserver",
        &[
            "schema",
            "object",
            "codec",
            "patch",
            "kinds",
            "openapi",
            "store",
            "registry",
            "auth",
            "admission",
            "webhook",
            "fairness",
            "audit",
            "metrics",
            "streaming",
            "trace",
        ],
    ),
    // 3: components. Plain API clients; the runtime is a CRI server.
    ("controllers", &["client", "informer", "semantics"]),
    ("scheduler", &["client", "informer", "semantics"]),
    ("kubelet", &["client", "informer", "semantics", "cri", "journal", "streaming"]),
    ("runtime", &["cri", "cni", "journal", "streaming"]),
    ("proxy", &["client", "informer", "netlink", "journal"]),
    ("dns", &["client", "informer"]),
    // 4: the only place that names engines and wires transports.
    ("supervisor", &["*"]),
    ("ironkeel", &["*"]),
    ("testkit", &["*"]),
    ("bench", &["*"]),
    ("xtask", &[]),
    ("guestbook", &[]),
];

/// Crates of layer 0 may not reach these.
const PURE: &[&str] = &["schema", "object", "codec", "patch", "expr", "openapi", "kinds", "semantics"];
const IMPURE: &[&str] = &["tokio", "hyper", "kube", "nix", "libc", "rustls", "tonic"];

/// Crates in which `unsafe` may stand, each with a SAFETY comment.
const UNSAFE: &[&str] =
    &["embedded", "netlink", "cni", "journal", "runtime", "kubelet", "supervisor", "ironkeel", "testkit", "bench"];

/// Fails with every violation listed.
pub(crate) fn run(root: &Path) -> Result<()> {
    let metadata = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&metadata.stdout).context("reading cargo metadata")?;
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = short(package["name"].as_str().unwrap_or_default());
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap_or_default());
        arrows(name, package, &mut faults);
        let text = std::fs::read_to_string(&manifest)?;
        if !text.contains("[lints]\nworkspace = true") {
            faults.push(format!("{name}: its manifest lacks `[lints] workspace = true`"));
        }
        let dir = manifest.parent().context("a manifest without a folder")?;
        for file in rust_files(dir)? {
            source(root, name, &file, &mut faults)?;
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    bail!("{} faults", faults.len());
}

fn short(package: &str) -> &str {
    package.strip_prefix("ironkeel-").unwrap_or(package)
}

fn arrows(name: &str, package: &Value, faults: &mut Vec<String>) {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let Some(may) = allowed.get(name) else {
        faults.push(format!("{name}: no row in the table of crate arrows"));
        return;
    };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        if dependency["kind"] == "dev" {
            continue;
        }
        let to = dependency["name"].as_str().unwrap_or_default();
        if to.starts_with("ironkeel-") && !may.contains(&"*") && !may.contains(&short(to)) {
            faults.push(format!("{name} may not depend on {}", short(to)));
        }
        if PURE.contains(&name) && IMPURE.contains(&to) {
            faults.push(format!("{name} is pure and may not depend on {to}"));
        }
    }
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

fn source(root: &Path, name: &str, file: &Path, faults: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    let shown = file.strip_prefix(root).unwrap_or(file).display();
    if !text.trim_start().starts_with("//!") {
        faults.push(format!("{shown}: opens without `//!`"));
    }
    let allows_unsafe = text.contains("#![allow(unsafe_code)]") || text.contains("#[allow(unsafe_code)]");
    if allows_unsafe && !UNSAFE.contains(&name) && name != "xtask" {
        faults.push(format!("{shown}: `unsafe` has no place in {name}"));
    }
    let generated = file.components().any(|c| c.as_os_str() == "generated");
    for (number, line) in text.lines().enumerate() {
        let at = format!("{shown}:{}", number + 1);
        let code = line.split("//").next().unwrap_or_default();
        if code.contains("#[ignore") && !file.ends_with("tidy.rs") {
            faults.push(format!("{at}: an ignored test"));
        }
        if !generated && line.contains("TODO") && !file.ends_with("tidy.rs") {
            faults.push(format!("{at}: a TODO"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_house_is_tidy() -> anyhow::Result<()> {
        super::run(&crate::root())
    }
}
