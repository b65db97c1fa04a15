//! Puts what strict decoding found in the document's order, as Go's decoder meets it.
//!
//! Only for texts that were read before and found wanting: the good ones never come here.

use std::collections::HashMap;

use crate::path::Path;
use crate::{Problem, ProblemKind};

/// Sorts `problems` by where they stand in `json`, a text that has been read without an error.
pub(super) fn sort(json: &[u8], problems: &mut [Problem]) {
    let mut seen = HashMap::new();
    let mut walk = Walk { json, at: 0, seen: &mut seen };
    walk.value(&Path::ROOT);
    problems.sort_by_key(|problem| {
        let places = seen.get(&problem.path);
        let place = match problem.kind {
            ProblemKind::UnknownField => places.map(|p| p.first),
            ProblemKind::DuplicateField => places.and_then(|p| p.second),
            // YAML reads these, not JSON.
            ProblemKind::DuplicateKeys => None,
        };
        place.unwrap_or(usize::MAX)
    });
}

/// Where a member of this path begins, in bytes: the first time and the second.
struct Places {
    first: usize,
    second: Option<usize>,
}

struct Walk<'a> {
    json: &'a [u8],
    at: usize,
    seen: &'a mut HashMap<String, Places>,
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

    fn value(&mut self, path: &Path<'_>) {
        match self.peek() {
            b'{' => {
                self.at += 1;
                while self.peek() == b'"' {
                    let place = self.at;
                    let name = self.string();
                    let member = path.member(&name);
                    let places = self.seen.entry(member.text());
                    places
                        .and_modify(|places| _ = places.second.get_or_insert(place))
                        .or_insert(Places { first: place, second: None });
                    self.value(&member);
                }
                self.at += 1;
            }
            b'[' => {
                self.at += 1;
                let mut i = 0;
                while self.at < self.json.len() && self.peek() != b']' {
                    self.value(&path.element(i));
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
