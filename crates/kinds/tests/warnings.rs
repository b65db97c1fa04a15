//! Warnings of creates, against upstream's for the same objects (`warnings.txt`).
#![allow(clippy::unwrap_used)]

use ironkeel_codec::{complete, conform, parse_json};
use ironkeel_kinds::{deprecation, kind};
use ironkeel_object::Value;

fn texts(all: Vec<String>) -> Value {
    all.into_iter().map(Value::from).collect::<Vec<_>>().into()
}

#[test]
fn creates_warn_as_upstream_does() {
    let file = include_str!("warnings.txt");
    let mut lines = file.lines().filter(|l| !l.starts_with('#'));
    let (mut faults, mut seen) = (Vec::new(), 0);
    while let (Some(head), Some(sent), Some(wanted)) = (lines.next(), lines.next(), lines.next()) {
        let (version, plural) = head.split_once(' ').unwrap();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = kind(group, version, plural).unwrap();
        let mut object = parse_json(sent.as_bytes()).unwrap();
        conform(&mut object, kind.resource.type_id, &mut Vec::new()).unwrap();
        kind.hooks.default(&mut object);
        kind.hooks.prepare_create(&mut object);
        complete(&mut object, kind.resource.type_id);
        let mut all: Vec<String> = deprecation(&kind.resource).into_iter().collect();
        all.extend(kind.hooks.warnings(&object, None, None));
        let wanted = parse_json(wanted.as_bytes()).unwrap();
        if texts(all.clone()) != wanted {
            faults.push(format!("{head} {sent}:\n  {all:?}, not\n  {wanted:?}"));
        }
        seen += 1;
    }
    assert!(seen > 25, "{seen}");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn updates_warn_of_templates_that_change_and_not_of_status() {
    let kind = kind("apps", "v1", "deployments").unwrap();
    let spec = r#""spec":{"template":{"spec":{"nodeSelector":{"beta.kubernetes.io/os":"linux"},"containers":[]}}}"#;
    let at = |generation: u64| {
        let text = format!(r#"{{"metadata":{{"name":"d","generation":{generation}}},{spec}}}"#);
        parse_json(text.as_bytes()).unwrap()
    };
    assert_eq!(kind.hooks.warnings(&at(2), Some(&at(1)), None).len(), 1);
    assert_eq!(kind.hooks.warnings(&at(1), Some(&at(1)), None).len(), 0);
    assert_eq!(kind.hooks.warnings(&at(2), Some(&at(1)), Some("status")).len(), 0);
}
