//! From YAML's events to a tree. Aliases are copies, so their number is limited: a few hundred
//! bytes of YAML must not become gigabytes.

use std::collections::{BTreeMap, HashMap, HashSet};

use ironkeel_object::{Key, Map, Number, Value};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::scalar;
use crate::error::note;
use crate::{DecodeError, MAX_NESTING, Problem, ProblemKind};

/// Nodes that all aliases of a document together may expand to.
const MAX_ALIAS_NODES: usize = 100_000;
/// Bytes of text that all aliases of a document together may expand to.
const MAX_ALIAS_BYTES: usize = 4 << 20;

/// An object or array that is not yet closed.
struct Open {
    anchor: usize,
    line: usize,
    kind: OpenKind,
}

enum OpenKind {
    Sequence(Vec<Value>),
    Mapping { members: Vec<(Key, Value)>, lines: Vec<usize>, key: Option<(String, usize)>, merges: Vec<Value> },
}

struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Value>,
    /// What aliases were expanded to.
    copied: Copied,
    /// What is kept for aliases to come.
    kept: Copied,
    problems: Vec<Problem>,
    root: Option<Value>,
}

/// Copies made so far.
#[derive(Default)]
struct Copied {
    nodes: usize,
    bytes: usize,
}

impl Copied {
    fn count(&mut self, value: &Value) -> Result<(), DecodeError> {
        let (nodes, bytes) = size(value);
        self.nodes += nodes;
        self.bytes += bytes;
        let fits = self.nodes <= MAX_ALIAS_NODES && self.bytes <= MAX_ALIAS_BYTES;
        if fits { Ok(()) } else { Err(DecodeError::YamlAliases) }
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<(Value, Vec<Problem>), DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|e| DecodeError::Utf8 { offset: e.valid_up_to() })?;
    let mut builder = Builder {
        open: Vec::new(),
        anchors: HashMap::new(),
        copied: Copied::default(),
        kept: Copied::default(),
        problems: Vec::new(),
        root: None,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) =
            next.map_err(|e: ScanError| DecodeError::Yaml { line: e.marker().line(), message: e.info().to_owned() })?;
        let line = span.start.line();
        match event {
            // As Go's readers, which look no further than the first document's end.
            Event::DocumentEnd => break,
            Event::StreamEnd => break,
            event => builder.event(event, line)?,
        }
    }
    Ok((builder.root.unwrap_or_default(), builder.problems))
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), DecodeError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = tagged(&text, style, tag.as_deref(), line)?;
                self.remember(anchor, &value)?;
                self.add(value, Some(&text), line)
            }
            Event::Alias(anchor) => {
                let Some(value) = self.anchors.get(&anchor) else {
                    let message = "unknown anchor, or an alias inside its own anchor".to_owned();
                    return Err(DecodeError::Yaml { line, message });
                };
                self.copied.count(value)?;
                if self.open.len() + depth(value) > MAX_NESTING {
                    return Err(DecodeError::TooDeep);
                }
                let value = value.clone();
                self.add(value, None, line)
            }
            Event::SequenceStart(anchor, _) => self.begin(anchor, line, OpenKind::Sequence(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(
                anchor,
                line,
                OpenKind::Mapping { members: Vec::new(), lines: Vec::new(), key: None, merges: Vec::new() },
            ),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, anchor: usize, line: usize, kind: OpenKind) -> Result<(), DecodeError> {
        if self.open.len() == MAX_NESTING {
            return Err(DecodeError::TooDeep);
        }
        self.open.push(Open { anchor, line, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.kind {
            OpenKind::Sequence(elements) => Value::Array(elements),
            OpenKind::Mapping { members, lines, merges, .. } => {
                let mut seen = HashSet::with_capacity(members.len());
                for ((name, _), line) in members.iter().zip(lines) {
                    if !seen.insert(name.as_ref()) {
                        note(&mut self.problems, || Problem {
                            path: format!("line {line}: key {name:?} already set in map"),
                            kind: ProblemKind::DuplicateKeys,
                        });
                    }
                }
                drop(seen);
                let (mut map, _) = Map::from_unsorted(members);
                // Gathered first: one by one they would move the map's members each time.
                let mut merged: BTreeMap<Key, Value> = BTreeMap::new();
                for merge in merges {
                    let merge = if let Value::Object(m) = merge { vec![Value::Object(m)] } else { into_list(merge) };
                    for source in merge {
                        let Value::Object(source) = source else {
                            let message = "map merge requires map or sequence of maps as the value".to_owned();
                            return Err(DecodeError::Yaml { line: open.line, message });
                        };
                        for (name, value) in source {
                            if !map.contains_key(&name) {
                                merged.entry(name).or_insert(value);
                            }
                        }
                    }
                }
                if !merged.is_empty() {
                    (map, _) = Map::from_unsorted(map.into_iter().chain(merged).collect());
                }
                Value::Object(map)
            }
        };
        self.remember(open.anchor, &value)?;
        self.add(value, None, open.line)
    }

    fn remember(&mut self, anchor: usize, value: &Value) -> Result<(), DecodeError> {
        if anchor > 0 {
            // Anchors inside anchors are copied again, too.
            self.kept.count(value)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(())
    }

    /// Puts a finished node where it belongs; `plain` is the text of a scalar.
    fn add(&mut self, value: Value, plain: Option<&str>, line: usize) -> Result<(), DecodeError> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        match &mut open.kind {
            OpenKind::Sequence(elements) => elements.push(value),
            OpenKind::Mapping { members, lines, key, merges } => match key.take() {
                None => *key = Some((member_name(value, plain, line)?, line)),
                Some((name, _)) if name == "<<" => merges.push(value),
                Some((name, at)) => {
                    members.push((Key::Owned(name), value));
                    lines.push(at);
                }
            },
        }
        Ok(())
    }
}

fn into_list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => elements,
        other => vec![other],
    }
}

/// Members' names are texts in JSON: numbers and booleans are written out.
fn member_name(value: Value, plain: Option<&str>, line: usize) -> Result<String, DecodeError> {
    Ok(match value {
        Value::String(name) => name,
        Value::Bool(b) => b.to_string(),
        Value::Number(Number::Int(i)) => i.to_string(),
        Value::Number(Number::Float(_)) => {
            let mut out = Vec::new();
            crate::encode_json(&value, &mut out);
            String::from_utf8(out).unwrap_or_default()
        }
        Value::Null if plain.is_some() => "null".to_owned(),
        _ => return Err(DecodeError::Yaml { line, message: "invalid map key".to_owned() }),
    })
}

fn tagged(text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Result<Value, DecodeError> {
    let Some(tag) = tag.filter(|t| t.is_yaml_core_schema()) else {
        return Ok(if style == ScalarStyle::Plain { scalar::resolve(text) } else { text.into() });
    };
    let resolved = scalar::resolve(text);
    let fits = match tag.suffix.as_str() {
        "str" | "binary" | "timestamp" => return Ok(text.into()),
        "int" => matches!(resolved, Value::Number(Number::Int(_))),
        "float" => matches!(resolved, Value::Number(_)),
        "bool" => matches!(resolved, Value::Bool(_)),
        "null" => resolved.is_null(),
        _ => true,
    };
    if fits {
        return Ok(resolved);
    }
    Err(DecodeError::Yaml { line, message: format!("cannot decode {text:?} as a !!{}", tag.suffix) })
}

/// Nodes and bytes of text in a value.
fn size(value: &Value) -> (usize, usize) {
    let sum = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
    match value {
        Value::String(s) => (1, s.len()),
        Value::Array(elements) => elements.iter().map(size).fold((1, 0), sum),
        Value::Object(members) => members.iter().map(|(k, v)| sum(size(v), (0, k.len()))).fold((1, 0), sum),
        _ => (1, 0),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
