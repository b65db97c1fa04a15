//! Files of what upstream answered: each entry is a head and some lines of JSON. Lines with `#` are for people.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part")]

use ironkeel_codec::{conform, parse_json};
use ironkeel_kinds::{Kind, kind};
use ironkeel_object::Value;

/// The entries of a file: each head, which ends with a group version and a plural, its kind, and as many lines as
/// `lines` says.
pub(crate) fn entries(
    file: &'static str,
    lines: usize,
) -> impl Iterator<Item = (&'static str, &'static Kind, Vec<&'static str>)> {
    let mut all = file.lines().filter(|line| !line.starts_with('#'));
    std::iter::from_fn(move || {
        let head = all.next()?;
        let words: Vec<&str> = head.split(' ').collect();
        let [.., version, plural] = words[..] else { panic!("{head}") };
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let body: Vec<&str> = all.by_ref().take(lines).collect();
        assert_eq!(body.len(), lines, "{head} is cut off");
        Some((head, kind(group, version, plural).unwrap(), body))
    })
}

/// An object of a kind, as its type has it.
pub(crate) fn object(kind: &Kind, text: &str) -> Value {
    let mut object = parse_json(text.as_bytes()).unwrap();
    conform(&mut object, kind.resource.type_id, &mut Vec::new()).unwrap();
    object
}

/// Paths at which two trees differ, with both values.
pub(crate) fn differences(ours: &Value, theirs: &Value, path: &str, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, value) in a.iter() {
                match b.get(name) {
                    Some(other) => differences(value, other, &format!("{path}.{name}"), out),
                    None => out.push(format!("{path}.{name}: {value:?}, not there upstream")),
                }
            }
            let absent = b.iter().filter(|(name, _)| !a.contains_key(name));
            out.extend(absent.map(|(name, value)| format!("{path}.{name}: absent, not {value:?}")));
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b.iter()).enumerate() {
                differences(x, y, &format!("{path}[{i}]"), out);
            }
        }
        _ if ours != theirs => out.push(format!("{path}: {ours:?}, not {theirs:?}")),
        _ => {}
    }
}
