//! The JSON reader. A type, where given, only lends the names of its fields; checks come later.

use ironkeel_object::{Key, Map, Number, Value};
use ironkeel_schema::{Shape, type_by_name};

use crate::error::note;
use crate::path::{Name, Path};
use crate::{DecodeError, MAX_NESTING, Problem, ProblemKind};

pub(crate) fn read(bytes: &[u8], shape: Option<Shape>) -> Result<(Value, Vec<Problem>), DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|e| DecodeError::Utf8 { offset: e.valid_up_to() })?;
    let mut reader = Reader { text, bytes, at: 0, depth: 0, problems: Vec::new() };
    let value = reader.value(shape.unwrap_or(Shape::Any), &Path::ROOT)?;
    reader.skip_space();
    if reader.at < bytes.len() {
        return Err(reader.unexpected("after top-level value"));
    }
    Ok((value, reader.problems))
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    problems: Vec<Problem>,
}

/// The shape of a member: what the schema says below it, for its names only.
fn member_shape(shape: &Shape, name: &str) -> Option<(&'static str, Shape)> {
    match shape {
        Shape::Struct(id) | Shape::SchemaOrArray(id) | Shape::SchemaOrBool(id) | Shape::SchemaOrStringArray(id) => {
            id.get().field(name).map(|f| (f.name, f.shape))
        }
        _ => None,
    }
}

/// Names that stand in every object, so that custom resources borrow them too.
fn common_name(name: &str) -> Option<(&'static str, Shape)> {
    Some(match name {
        "metadata" => ("metadata", type_by_name("meta/v1.ObjectMeta").map_or(Shape::Any, Shape::Struct)),
        "apiVersion" => ("apiVersion", Shape::Any),
        "kind" => ("kind", Shape::Any),
        "spec" => ("spec", Shape::Any),
        "status" => ("status", Shape::Any),
        _ => return None,
    })
}

fn element_shape(shape: &Shape) -> Shape {
    match shape {
        Shape::List(inner) => **inner,
        Shape::SchemaOrArray(id) => Shape::Struct(*id),
        _ => Shape::Json,
    }
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn unexpected(&self, context: &'static str) -> DecodeError {
        let Some(found) = self.text.get(self.at..).and_then(|t| t.chars().next()) else {
            return DecodeError::UnexpectedEnd;
        };
        let found = match found {
            '\'' => r"'\''".to_owned(),
            '"' => "'\"'".to_owned(),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => match c {
                '\n' => r"'\n'".to_owned(),
                '\r' => r"'\r'".to_owned(),
                '\t' => r"'\t'".to_owned(),
                c => format!("'\\x{:02x}'", c as u32),
            },
            c => format!("'{c}'"),
        };
        DecodeError::Syntax { found, context, offset: self.at }
    }

    fn value(&mut self, shape: Shape, path: &Path<'_>) -> Result<Value, DecodeError> {
        self.skip_space();
        match self.bytes.get(self.at) {
            Some(b'{') => self.nested(|r| r.object(shape, path)),
            Some(b'[') => self.nested(|r| r.array(shape, path)),
            Some(b'"') => self.string().map(|s| Value::String(s.into_owned())),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<Value, DecodeError>) -> Result<Value, DecodeError> {
        if self.depth == MAX_NESTING {
            return Err(DecodeError::TooDeep);
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self, shape: Shape, path: &Path<'_>) -> Result<Value, DecodeError> {
        let mut members: Vec<(Key, Value)> = Vec::new();
        self.skip_space();
        if self.bytes.get(self.at) == Some(&b'}') {
            self.at += 1;
            return Ok(Value::object());
        }
        let (free, child) = match &shape {
            Shape::Map(inner) => (true, **inner),
            _ => (false, Shape::Json),
        };
        let root = self.depth == 1 && matches!(shape, Shape::Any);
        loop {
            self.skip_space();
            if self.bytes.get(self.at) != Some(&b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let name = self.string()?;
            self.skip_space();
            if self.bytes.get(self.at) != Some(&b':') {
                return Err(self.unexpected("after object key"));
            }
            self.at += 1;
            let known = if free {
                None
            } else if root {
                common_name(&name)
            } else {
                member_shape(&shape, &name)
            };
            let member = match known {
                Some((name, shape)) => (Key::Borrowed(name), self.value(shape, &path.member(name))?),
                None => {
                    let value = self.value(child, &path.member(&name))?;
                    (Key::Owned(name.into_owned()), value)
                }
            };
            if members.capacity() == 0 {
                members.reserve(if free { 4 } else { 8 });
            }
            members.push(member);
            self.skip_space();
            match self.bytes.get(self.at) {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
        self.at += 1;
        let (map, duplicates) = Map::from_unsorted(members);
        for name in duplicates {
            note(&mut self.problems, || Problem { path: path.member(&name).text(), kind: ProblemKind::DuplicateField });
        }
        Ok(Value::Object(map))
    }

    fn array(&mut self, shape: Shape, path: &Path<'_>) -> Result<Value, DecodeError> {
        let mut elements = Vec::new();
        self.skip_space();
        if self.bytes.get(self.at) == Some(&b']') {
            self.at += 1;
            return Ok(Value::Array(elements));
        }
        let shape = element_shape(&shape);
        loop {
            elements.push(self.value(shape, &path.element(elements.len()))?);
            self.skip_space();
            match self.bytes.get(self.at) {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.unexpected("after array element")),
            }
        }
        self.at += 1;
        Ok(Value::Array(elements))
    }

    fn literal(&mut self, word: &'static str, value: Value) -> Result<Value, DecodeError> {
        for expected in word.bytes() {
            if self.bytes.get(self.at) != Some(&expected) {
                return Err(self.unexpected(match word {
                    "true" => "in literal true",
                    "false" => "in literal false",
                    _ => "in literal null",
                }));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Number, DecodeError> {
        let start = self.at;
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        let first = self.bytes.get(self.at).copied();
        if self.digits() == 0 {
            return Err(self.unexpected("in numeric literal"));
        }
        let leading_zero = first == Some(b'0');
        if leading_zero {
            // A zero ends the whole part: what follows is not part of the number.
            let whole_start = if self.bytes[start] == b'-' { start + 1 } else { start };
            self.at = whole_start + 1;
        }
        let mut integer = true;
        if self.bytes.get(self.at) == Some(&b'.') {
            integer = false;
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.unexpected("after decimal point in numeric literal"));
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.unexpected("in exponent of numeric literal"));
            }
        }
        let literal = &self.text[start..self.at];
        if integer && let Ok(i) = literal.parse::<i64>() {
            return Ok(Number::Int(i));
        }
        match literal.parse::<f64>() {
            Ok(f) if f.is_finite() => Ok(Number::Float(f)),
            _ => Err(DecodeError::NumberRange { literal: literal.chars().take(64).collect() }),
        }
    }

    /// A string; stands on the opening quote.
    fn string(&mut self) -> Result<Name<'a>, DecodeError> {
        self.at += 1;
        let start = self.at;
        self.plain_run();
        if self.bytes.get(self.at) == Some(&b'"') {
            let text = &self.text[start..self.at];
            self.at += 1;
            return Ok(Name::Borrowed(text));
        }
        let mut out = String::from(&self.text[start..self.at]);
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Name::Owned(out));
                }
                Some(b'\\') => self.escape(&mut out)?,
                _ => return Err(self.unexpected("in string literal")),
            }
            let run = self.at;
            self.plain_run();
            out.push_str(&self.text[run..self.at]);
        }
    }

    /// Goes on to the next quote, backslash or control character.
    fn plain_run(&mut self) {
        let rest = &self.bytes[self.at..];
        let run = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
        self.at += run;
    }

    fn escape(&mut self, out: &mut String) -> Result<(), DecodeError> {
        self.at += 1;
        let c = match self.bytes.get(self.at) {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(*c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let unit = self.hex4()?;
                // Half a surrogate pair is replaced, as in Go.
                let c = match unit {
                    0xd800..=0xdbff if self.bytes[self.at..].starts_with(b"\\u") => {
                        let back = self.at;
                        self.at += 2;
                        let low = self.hex4()?;
                        if (0xdc00..=0xdfff).contains(&low) {
                            char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
                        } else {
                            self.at = back;
                            None
                        }
                    }
                    unit => char::from_u32(unit),
                };
                out.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
                return Ok(());
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        self.at += 1;
        out.push(c);
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, DecodeError> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.bytes.get(self.at).and_then(|b| char::from(*b).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| self.unexpected("in \\u hexadecimal character escape"))?;
            self.at += 1;
        }
        Ok(unit)
    }
}
