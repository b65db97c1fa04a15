//! From tokens to the tree. Operators need no recursion, so a wide expression costs no stack; what
//! nests, in the source or in the tree, is bounded by [`crate::MAX_DEPTH`].

use std::sync::Arc;

use crate::ast::{Entry, Expr, Item, Kind, Logic, Select, SelectMode, Struct, StructField};
use crate::lexer::{self, Token, TokenKind};
use crate::source::Fault;
use crate::value::Val;
use crate::{MAX_DEPTH, MAX_SOURCE_CHARS, escaping, macros};

/// What may start an operand, as ANTLR lists it.
const OPERANDS: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

type Parsed<T> = Result<T, Fault>;

/// Parses a whole source.
pub(crate) fn parse(source: &str, bindings: bool) -> Result<Expr, Vec<Fault>> {
    let size = source.chars().count();
    if size > MAX_SOURCE_CHARS {
        let message = format!("expression code point size exceeds limit: size: {size}, limit {MAX_SOURCE_CHARS}");
        return Err(vec![Fault { pos: None, message }]);
    }
    let tokens = lexer::tokens(source)?;
    let mut parser = Parser { source, tokens, at: 0, nesting: 0, bindings };
    let expr = parser.expr().map_err(|f| vec![f])?;
    match parser.peek().kind {
        TokenKind::End => Ok(expr),
        _ => Err(vec![parser.unexpected("<EOF>")]),
    }
}

struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Token>,
    at: usize,
    nesting: usize,
    /// Whether `cel.bind` is known.
    bindings: bool,
}

/// Words that the lexer takes for itself wherever they stand.
const KEYWORDS: [&str; 4] = ["in", "true", "false", "null"];

#[derive(Clone, Copy)]
struct Operator {
    text: &'static str,
    precedence: u8,
    pos: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        // The last token is the end and is never passed.
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn text(&self, token: &Token) -> &str {
        &self.source[token.start..token.end]
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn peek_punct(&self) -> &'static str {
        match self.peek().kind {
            TokenKind::Punct(p) => p,
            _ => "",
        }
    }

    fn eat(&mut self, punct: &str) -> Option<usize> {
        (self.peek_punct() == punct).then(|| self.next().start)
    }

    fn unexpected(&self, expecting: &str) -> Fault {
        let token = self.peek();
        let text = if matches!(token.kind, TokenKind::End) { "<EOF>" } else { self.text(token) };
        let text: String = text.chars().take(64).collect();
        Fault::at(token.start, format!("Syntax error: mismatched input '{text}' expecting {expecting}"))
    }

    fn expect(&mut self, punct: &str) -> Parsed<usize> {
        match self.eat(punct) {
            Some(pos) => Ok(pos),
            None => Err(self.unexpected(&format!("'{punct}'"))),
        }
    }

    /// Refuses a tree that is too deep.
    fn bounded(&self, expr: Expr) -> Parsed<Expr> {
        if usize::from(expr.depth) > MAX_DEPTH {
            return Err(too_deep());
        }
        Ok(expr)
    }

    fn expr(&mut self) -> Parsed<Expr> {
        self.nesting += 1;
        if self.nesting > MAX_DEPTH {
            return Err(too_deep());
        }
        let condition = self.operators()?;
        let out = match self.eat("?") {
            None => condition,
            Some(pos) => {
                let truthy = self.operators()?;
                self.expect(":")?;
                let falsy = self.expr()?;
                self.bounded(Expr::new(Kind::Conditional(Box::new([condition, truthy, falsy])), pos))?
            }
        };
        self.nesting -= 1;
        Ok(out)
    }

    /// Binary operators of all precedences, with stacks of our own.
    fn operators(&mut self) -> Parsed<Expr> {
        let mut operands = vec![self.unary()?];
        let mut waiting: Vec<Operator> = Vec::new();
        loop {
            let operator = self.operator();
            let precedence = operator.map_or(0, |o| o.precedence);
            while waiting.last().is_some_and(|o| o.precedence >= precedence) {
                let (Some(o), Some(right), Some(left)) = (waiting.pop(), operands.pop(), operands.pop()) else { break };
                let expr = self.bounded(binary(o, left, right))?;
                operands.push(expr);
            }
            let Some(operator) = operator else { break };
            self.at += 1;
            waiting.push(operator);
            let right = self.unary()?;
            operands.push(right);
        }
        operands.pop().ok_or_else(|| self.unexpected(OPERANDS))
    }

    fn operator(&self) -> Option<Operator> {
        let token = self.peek();
        let text = match token.kind {
            TokenKind::Punct(p) => p,
            TokenKind::Ident if self.text(token) == "in" => "in",
            _ => return None,
        };
        let precedence = match text {
            "||" => 1,
            "&&" => 2,
            "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" => 3,
            "+" | "-" => 4,
            "*" | "/" | "%" => 5,
            _ => return None,
        };
        Some(Operator { text, precedence, pos: token.start })
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let sign = self.peek_punct();
        if sign != "!" && sign != "-" {
            let primary = self.primary()?;
            return self.member(primary);
        }
        let pos = self.peek().start;
        let mut count = 0usize;
        while self.peek_punct() == sign {
            // The minus of a literal belongs to it.
            if sign == "-" && self.tokens.get(self.at + 1).is_some_and(is_number) {
                break;
            }
            self.at += 1;
            count += 1;
        }
        let start = self.at;
        let primary = self.primary().map_err(|mut fault| {
            // As upstream's parser tells what stands where signs could go on.
            if self.at == start {
                fault.message = fault.message.replacen("mismatched input", "extraneous input", 1);
            }
            fault
        })?;
        let operand = self.member(primary)?;
        if count.is_multiple_of(2) {
            return Ok(operand);
        }
        let name = if sign == "!" { "!_" } else { "-_" };
        self.bounded(Expr::call(name, None, vec![operand], pos))
    }

    fn member(&mut self, mut expr: Expr) -> Parsed<Expr> {
        loop {
            match self.peek_punct() {
                "." => {
                    let pos = self.next().start;
                    let optional = self.eat("?").is_some();
                    let token = self.peek().clone();
                    let field: Arc<str> = match token.kind {
                        TokenKind::Ident if KEYWORDS.contains(&self.text(&token)) => {
                            let message =
                                format!("Syntax error: no viable alternative at input '.{}'", self.text(&token));
                            return Err(Fault::at(token.start, &message));
                        }
                        TokenKind::Ident => self.text(&token).into(),
                        TokenKind::Quoted => self.source[token.start + 1..token.end - 1].into(),
                        _ => return Err(self.unexpected("IDENTIFIER")),
                    };
                    self.at += 1;
                    if !optional && matches!(token.kind, TokenKind::Ident) && self.peek_punct() == "(" {
                        let open = self.next().start;
                        let args = self.arguments()?;
                        expr = macros::member(&field, expr, args, open, self.bindings)?;
                    } else {
                        let mode = if optional { SelectMode::Optional } else { SelectMode::Value };
                        expr = Expr::new(Kind::Select(Box::new(Select { operand: expr, field, mode })), pos);
                    }
                }
                "[" => {
                    let pos = self.next().start;
                    let optional = self.eat("?").is_some();
                    let index = self.expr()?;
                    self.expect("]")?;
                    expr = Expr::call(if optional { "_[?_]" } else { "_[_]" }, None, vec![expr, index], pos);
                }
                "{" => {
                    let Some(name) = expr.qualified_name() else { return Err(self.unexpected("<EOF>")) };
                    let pos = self.next().start;
                    expr = self.message(name, pos)?;
                }
                _ => return Ok(expr),
            }
            expr = self.bounded(expr)?;
        }
    }

    fn message(&mut self, name: String, pos: usize) -> Parsed<Expr> {
        let mut fields = Vec::new();
        while self.peek_punct() != "}" {
            let optional = self.eat("?").is_some();
            let token = self.peek().clone();
            let field: Arc<str> = match token.kind {
                TokenKind::Ident => self.text(&token).into(),
                TokenKind::Quoted => self.source[token.start + 1..token.end - 1].into(),
                _ => return Err(self.unexpected("IDENTIFIER")),
            };
            self.at += 1;
            let colon = self.expect(":")?;
            let value = self.expr()?;
            fields.push(StructField { name: field.clone(), json_name: field, value, optional, pos: colon as u32 });
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        let name = name.strip_prefix('.').unwrap_or(&name).into();
        Ok(Expr::new(Kind::Struct(Box::new(Struct { name, fields })), pos))
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        let mut args = Vec::new();
        if self.eat(")").is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect(")")?;
        Ok(args)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let token = self.peek().clone();
        match token.kind {
            TokenKind::Literal(value) => {
                self.at += 1;
                Ok(Expr::new(Kind::Literal(value), token.start))
            }
            TokenKind::Int | TokenKind::Uint | TokenKind::Double => self.number(false, token.start),
            TokenKind::Ident => self.name(),
            TokenKind::Punct("-") if self.tokens.get(self.at + 1).is_some_and(is_number) => {
                self.at += 1;
                self.number(true, token.start)
            }
            TokenKind::Punct(".") => {
                self.at += 1;
                match self.peek().kind {
                    TokenKind::Ident => self.name(),
                    _ => Err(self.unexpected("IDENTIFIER")),
                }
            }
            TokenKind::Punct("(") => {
                self.at += 1;
                let expr = self.expr()?;
                self.expect(")")?;
                Ok(expr)
            }
            TokenKind::Punct("[") => self.list(token.start),
            TokenKind::Punct("{") => self.map(token.start),
            _ => Err(self.unexpected(OPERANDS)),
        }
    }

    fn name(&mut self) -> Parsed<Expr> {
        let token = self.next();
        let literal = match self.text(&token) {
            "true" => Some(Val::Bool(true)),
            "false" => Some(Val::Bool(false)),
            "null" => Some(Val::Null),
            _ => None,
        };
        if let Some(value) = literal {
            return Ok(Expr::new(Kind::Literal(value), token.start));
        }
        let name: Arc<str> = self.text(&token).into();
        if &*name == "in" {
            self.at -= 1;
            return Err(self.unexpected(OPERANDS));
        }
        if escaping::is_reserved(&name) {
            return Err(Fault::at(token.start, format!("reserved identifier: {name}")));
        }
        if let Some(open) = self.eat("(") {
            let args = self.arguments()?;
            let call = macros::global(&name, args, open)?;
            return self.bounded(call);
        }
        Ok(Expr::new(Kind::Ident(name), token.start))
    }

    fn number(&mut self, negative: bool, pos: usize) -> Parsed<Expr> {
        let token = self.next();
        let text = self.text(&token);
        let value = match token.kind {
            TokenKind::Double => {
                let d: f64 = text.parse().map_err(|_| Fault::at(pos, "invalid double literal"))?;
                if !d.is_finite() {
                    return Err(Fault::at(pos, "invalid double literal"));
                }
                Val::Double(if negative { -d } else { d })
            }
            TokenKind::Uint => {
                if negative {
                    return Err(Fault::at(pos, "invalid uint literal"));
                }
                let digits = text.trim_end_matches(['u', 'U']);
                Val::Uint(
                    whole(digits)
                        .and_then(|n| n.try_into().ok())
                        .ok_or_else(|| Fault::at(pos, "invalid uint literal"))?,
                )
            }
            _ => {
                let n = whole(text).map(|n| if negative { -n } else { n });
                Val::Int(n.and_then(|n| n.try_into().ok()).ok_or_else(|| Fault::at(pos, "invalid int literal"))?)
            }
        };
        Ok(Expr::new(Kind::Literal(value), pos))
    }

    fn list(&mut self, pos: usize) -> Parsed<Expr> {
        self.at += 1;
        let mut items = Vec::new();
        while self.peek_punct() != "]" {
            let optional = self.eat("?").is_some();
            let value = self.expr()?;
            items.push(Item { value, optional });
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect("]")?;
        self.bounded(Expr::new(Kind::List(items), pos))
    }

    fn map(&mut self, pos: usize) -> Parsed<Expr> {
        self.at += 1;
        let mut entries = Vec::new();
        while self.peek_punct() != "}" {
            let optional = self.eat("?").is_some();
            let key = self.expr()?;
            self.expect(":")?;
            let value = self.expr()?;
            entries.push(Entry { key, value, optional });
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        self.bounded(Expr::new(Kind::Map(entries), pos))
    }
}

fn too_deep() -> Fault {
    Fault { pos: None, message: format!("expression recursion limit exceeded: {MAX_DEPTH}") }
}

fn is_number(token: &Token) -> bool {
    matches!(token.kind, TokenKind::Int | TokenKind::Double)
}

fn whole(text: &str) -> Option<i128> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => i128::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn binary(operator: Operator, left: Expr, right: Expr) -> Expr {
    let logic = match operator.text {
        "&&" => Some(Logic::And),
        "||" => Some(Logic::Or),
        _ => None,
    };
    if let Some(logic) = logic {
        let mut left = left;
        if let Kind::Logic(known, terms) = &mut left.kind
            && *known == logic
        {
            left.depth = left.depth.max(right.depth.saturating_add(1));
            terms.push(right);
            return left;
        }
        return Expr::new(Kind::Logic(logic, vec![left, right]), operator.pos);
    }
    let name = match operator.text {
        "==" => "_==_",
        "!=" => "_!=_",
        "<" => "_<_",
        "<=" => "_<=_",
        ">" => "_>_",
        ">=" => "_>=_",
        "+" => "_+_",
        "-" => "_-_",
        "*" => "_*_",
        "/" => "_/_",
        "%" => "_%_",
        _ => "@in",
    };
    Expr::call(name, None, vec![left, right], operator.pos)
}
