//! The controls of the Pod Security Standards, as of each minor version: which are asked, in which
//! order, and what they share. [`baseline`] and [`restricted`] hold the controls themselves.

mod baseline;
mod restricted;

use ironkeel_object::Value;

/// A Pod or a Pod template, as controls see it.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) spec: &'a Value,
    pub(super) annotations: Option<&'a Value>,
}

/// What a control holds against a Pod as of a minor version: the whole text, `reason (detail)`.
type Control = fn(&Subject<'_>, u32) -> Option<String>;

/// One control: the first minor version that has it, and, of a baseline control, the version from
/// which a restricted one speaks in its stead.
struct Row(Control, u32, Option<u32>);

/// In order of upstream's identifiers, which is that of the answer.
const BASELINE: &[Row] = &[
    Row(baseline::app_armor, 0, None),
    Row(baseline::capabilities, 0, Some(22)),
    Row(baseline::host_namespaces, 0, None),
    Row(baseline::host_path_volumes, 0, Some(0)),
    Row(baseline::host_ports, 0, None),
    Row(baseline::host_probes, 34, None),
    Row(baseline::privileged, 0, None),
    Row(baseline::proc_mount, 0, Some(35)),
    Row(baseline::selinux, 0, None),
    Row(baseline::seccomp, 0, Some(19)),
    Row(baseline::sysctls, 0, None),
    Row(baseline::windows_host_process, 0, None),
];
const RESTRICTED: &[Row] = &[
    Row(restricted::privilege_escalation, 8, None),
    Row(restricted::capabilities, 22, None),
    Row(restricted::proc_mount, 35, None),
    Row(restricted::volumes, 0, None),
    Row(restricted::run_as_non_root, 0, None),
    Row(restricted::run_as_user, 23, None),
    Row(restricted::seccomp, 19, None),
];

/// All that a level forbids of a Pod: the baseline's controls first.
pub(super) fn violations(subject: &Subject<'_>, minor: u32, restricted: bool) -> Vec<String> {
    let asked = |row: &&Row| row.1 <= minor && !(restricted && row.2.is_some_and(|since| since <= minor));
    let more = if restricted { RESTRICTED } else { &[] };
    let rows = BASELINE.iter().chain(more);
    rows.filter(asked).filter_map(|row| row.0(subject, minor)).collect()
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|l| spec.items_at(&[l]))
}

fn name(container: &Value) -> &str {
    container.str_at(&["name"]).unwrap_or_default()
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    items.iter().map(|n| format!("\"{}\"", n.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Each once, in order.
fn sorted(mut items: Vec<String>) -> Vec<String> {
    items.sort();
    items.dedup();
    items
}

/// `container "a"` or `containers "a", "b"`.
fn who(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// Names of the containers that are bad.
fn bad<'a>(spec: &'a Value, is_bad: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
    containers(spec).filter(|c| is_bad(c)).map(name).collect()
}

/// The Pod and the containers whose `securityContext` is bad: `pod and container "a"`.
fn setters<'a>(spec: &'a Value, is_bad: impl Fn(&'a Value) -> bool) -> Vec<String> {
    let mut out = Vec::new();
    if is_bad(spec) {
        out.push("pod".to_owned());
    }
    let names = bad(spec, is_bad);
    if !names.is_empty() {
        out.push(who(&names));
    }
    out
}

/// What the Pod and its containers say at a path of `securityContext`, each once, in order.
fn said(spec: &Value, wrong: impl Fn(&Value) -> Option<&str>) -> Vec<String> {
    let all = std::iter::once(spec).chain(containers(spec));
    sorted(all.filter_map(wrong).map(str::to_owned).collect())
}

fn flag(value: &Value, path: &[&str]) -> Option<bool> {
    value.at(path).and_then(Value::as_bool)
}

fn windows(spec: &Value) -> bool {
    spec.str_at(&["os", "name"]) == Some("windows")
}

/// A Pod in a user namespace of its own, whose root is nobody on the host.
fn in_user_namespace(spec: &Value) -> bool {
    flag(spec, &["hostUsers"]) == Some(false)
}

/// The type of a seccomp profile that is set and unsafe.
fn unsafe_seccomp(c: &Value) -> Option<&str> {
    c.at(&["securityContext", "seccompProfile"]).filter(|p| !p.is_null())?;
    let kind = c.str_at(&["securityContext", "seccompProfile", "type"]).unwrap_or_default();
    (!matches!(kind, "RuntimeDefault" | "Localhost")).then_some(kind)
}

/// Profiles that are set and unsafe, at any place.
fn seccomp_set(spec: &Value) -> Option<String> {
    let by = setters(spec, |c| unsafe_seccomp(c).is_some());
    let (by, values) = (by.join(" and "), quoted(&said(spec, unsafe_seccomp)));
    (!by.is_empty())
        .then(|| format!("seccompProfile ({by} must not set securityContext.seccompProfile.type to {values})"))
}

/// Mounts of /proc that hide less than they should.
fn unmasked_proc(spec: &Value) -> Option<String> {
    let mount = |c| Value::str_at(c, &["securityContext", "procMount"]).filter(|p| *p != "Default");
    let names = bad(spec, |c| mount(c).is_some());
    let values = sorted(containers(spec).filter_map(mount).map(str::to_owned).collect());
    (!names.is_empty())
        .then(|| format!("procMount ({} must not set securityContext.procMount to {})", who(&names), quoted(&values)))
}
