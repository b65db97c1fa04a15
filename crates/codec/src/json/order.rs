//! Puts what strict decoding found in the document's order, as Go's decoder meets it.
//!
//! Only for texts that were read before and found wanting: the good ones never come here.

use std::collections::HashMap;

use crate::{Problem, ProblemKind};

/// Sorts `problems` by where they stand in `json`, a text that has been read without an error.
pub(super) fn sort(json: &[u8], problems: &mut [Problem]) {
    let seen = problems.iter().map(|p| (Name::ROOT.and(&p.path), Places::default())).collect();
    let mut walk = Walk { json, at: 0, seen };
    walk.value(Name::ROOT);
    let seen = walk.seen;
    problems.sort_by_key(|problem| {
        let places = seen.get(&Name::ROOT.and(&problem.path));
        let place = match problem.kind {
            ProblemKind::UnknownField => places.and_then(|p| p.first),
            ProblemKind::DuplicateField => places.and_then(|p| p.second),
            // YAML reads these, not JSON.
            ProblemKind::DuplicateKeys => None,
        };
        place.unwrap_or(usize::MAX)
    });
}

/// Where a member of this path begins, in bytes: the first time and the second.
#[derive(Default)]
struct Places {
    first: Option<usize>,
    second: Option<usize>,
}

/// A path by the hash of its text (FNV-1a), which grows by a step without those before it: below a long name, the
/// texts of all paths of a document are gigabytes. Two paths of one hash would only be told in another order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Name(u64);

impl Name {
    const ROOT: Name = Name(0xcbf2_9ce4_8422_2325);

    fn and(self, text: &str) -> Name {
        Name(text.bytes().fold(self.0, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)))
    }

    fn member(self, name: &str) -> Name {
        if self == Name::ROOT { self.and(name) } else { self.and(".").and(name) }
    }

    fn element(self, index: usize) -> Name {
        self.and(&format!("[{index}]"))
    }
}

struct Walk<'a> {
    json: &'a [u8],
    at: usize,
    /// Of the paths that are looked for.
    seen: HashMap<Name, Places>,
}

impl Walk<'_> {
    fn peek(&mut self) -> u8 {
        while matches!(self.json.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | b':')) {
            self.at += 1;
        }
        self.json.get(self.at).copied().unwrap_or(b'}')
    }

    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        while let Some(b) = self.json.get(self.at) {
            match b {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.at = (self.at + 1).min(self.json.len());
        let text = self.json.get(start..self.at).unwrap_or_default();
        match crate::parse_json(text) {
            Ok(ironkeel_object::Value::String(text)) => text,
            _ => String::new(),
        }
    }

    fn value(&mut self, path: Name) {
        match self.peek() {
            b'{' => {
                self.at += 1;
                while self.peek() == b'"' {
                    let place = self.at;
                    let name = self.string();
                    let member = path.member(&name);
                    if let Some(places) = self.seen.get_mut(&member) {
                        match places.first {
                            None => places.first = Some(place),
                            Some(_) => _ = places.second.get_or_insert(place),
                        }
                    }
                    self.value(member);
                }
                self.at += 1;
            }
            b'[' => {
                self.at += 1;
                let mut i = 0;
                while self.at < self.json.len() && self.peek() != b']' {
                    self.value(path.element(i));
                    i += 1;
                }
                self.at += 1;
            }
            b'"' => {
                self.string();
            }
            _ => {
                while self.json.get(self.at).is_some_and(|b| !matches!(b, b',' | b'}' | b']')) {
                    self.at += 1;
                }
            }
        }
    }
}
