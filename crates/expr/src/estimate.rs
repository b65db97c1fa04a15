//! What an expression may cost at most, from the bounds of its data: cel-go's static estimate.
//!
//! CRD rules are refused by these numbers, so they follow upstream's arithmetic.

use crate::ast::{Bind, Call, Comprehension, Expr, Kind, OptMap, Select, SelectMode};
use crate::cost;
use crate::functions::Cost;
use crate::program::Tree;
use crate::schema::DeclType;
use crate::types::{Opaque, Type};
use crate::value::Val;

/// A range of cost units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostEstimate {
    /// At least.
    pub min: u64,
    /// At most; `u64::MAX` where nothing bounds it.
    pub max: u64,
}

/// A range of sizes, with the same arithmetic.
type Size = CostEstimate;

const UNKNOWN: Size = Size { min: 0, max: u64::MAX };
const PER_CHAR: f64 = 0.1;
const PER_PATTERN_CHAR: f64 = 0.25;
/// Length that a named format's pattern is taken to have.
const FORMAT_PATTERN_CHARS: f64 = 128.0;
/// Longest name of a format.
const FORMAT_NAME_CHARS: u64 = 64;
const LIST: Size = fixed(10);
const MAP: Size = fixed(30);
const MESSAGE: Size = fixed(40);

const fn fixed(n: u64) -> Size {
    Size { min: n, max: n }
}

fn scale(n: u64, factor: f64) -> u64 {
    // Saturates at the top.
    (n as f64 * factor).ceil() as u64
}

impl CostEstimate {
    fn plus(self, other: Self) -> Self {
        Size { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Self) -> Self {
        Size { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn scaled(self, factor: f64) -> Self {
        Size { min: scale(self.min, factor), max: scale(self.max, factor) }
    }

    fn union(self, other: Self) -> Self {
        Size { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// Sizes of a container's keys and values.
#[derive(Clone, Copy)]
struct Entry {
    list: bool,
    key: Size,
    value: Size,
}

/// What is known of a node.
#[derive(Clone, Default)]
struct Node {
    cost: Size,
    /// Where its value stands in the data; empty for what was made.
    path: Vec<String>,
    size: Option<Size>,
    entry: Option<Entry>,
}

impl Node {
    fn size(&self) -> Size {
        self.size.unwrap_or(UNKNOWN)
    }
}

struct Estimator<'s> {
    tree: &'s Tree,
    schemas: &'s [(&'s str, &'s DeclType)],
    locals: Vec<Node>,
}

/// Estimates a tree.
pub(crate) fn estimate(tree: &Tree, schemas: &[(&str, &DeclType)]) -> CostEstimate {
    let mut estimator = Estimator { tree, schemas, locals: vec![Node::default(); tree.slots] };
    estimator.node(&tree.expr).cost
}

impl Estimator<'_> {
    fn node(&mut self, e: &Expr) -> Node {
        let mut node = self.shape(e);
        if node.size.is_none() {
            node.size = self.declared(&node.path).or_else(|| scalar(&e.ty).then(|| fixed(1)));
        }
        node
    }

    fn declared(&self, path: &[String]) -> Option<Size> {
        let (root, rest) = path.split_first()?;
        let (_, schema) = self.schemas.iter().find(|(name, _)| name == root)?;
        schema.max_at(rest).map(|max| Size { min: 0, max })
    }

    fn shape(&mut self, e: &Expr) -> Node {
        match &e.kind {
            Kind::Literal(value) => {
                let size = match value {
                    Val::List(_) | Val::Map(_) | Val::String(_) | Val::Bytes(_) => value.size(),
                    _ => 1,
                };
                Node { size: Some(fixed(size)), ..Node::default() }
            }
            Kind::Known(_, written) if matches!(written.kind, Kind::Ident(_)) => {
                Node { cost: fixed(1), size: None, ..Node::default() }
            }
            Kind::Known(_, written) => self.node(written),
            Kind::Var(at) => {
                let path = self.tree.variables.get(*at as usize).map(|(name, _)| name.to_string());
                Node { cost: fixed(1), path: path.into_iter().collect(), ..Node::default() }
            }
            Kind::Local(slot) | Kind::TakeLocal(slot) => {
                let mut node = self.locals.get(*slot as usize).cloned().unwrap_or_default();
                if let Some(declared) = self.declared(&node.path) {
                    node.size = Some(declared);
                }
                node.cost = fixed(1);
                node
            }
            Kind::Ident(_) => Node { cost: fixed(1), ..Node::default() },
            Kind::Select(select) => self.select(select),
            Kind::Call(call) => self.call(call),
            Kind::Logic(_, terms) => {
                let mut cost = Size::default();
                for (i, term) in terms.iter().enumerate() {
                    let term = self.node(term).cost;
                    // The first may decide alone.
                    cost = if i == 0 { term } else { Size { min: cost.min, max: cost.max.saturating_add(term.max) } };
                }
                Node { cost, size: Some(fixed(1)), ..Node::default() }
            }
            Kind::Conditional(parts) => {
                let [condition, yes, no] = [&parts[0], &parts[1], &parts[2]].map(|p| self.node(p));
                Node {
                    cost: condition.cost.plus(yes.cost.union(no.cost)),
                    size: Some(yes.size().union(no.size())),
                    entry: union_entries(yes.entry, no.entry),
                    path: Vec::new(),
                }
            }
            Kind::List(items) => {
                let nodes: Vec<Node> = items.iter().map(|i| self.node(&i.value)).collect();
                let entry = Entry { list: true, key: fixed(1), value: sizes(&nodes) };
                container(LIST, items.len(), nodes.iter(), entry)
            }
            Kind::Map(entries) => {
                let keys: Vec<Node> = entries.iter().map(|e| self.node(&e.key)).collect();
                let values: Vec<Node> = entries.iter().map(|e| self.node(&e.value)).collect();
                let entry = Entry { list: false, key: sizes(&keys), value: sizes(&values) };
                container(MAP, entries.len(), keys.iter().chain(&values), entry)
            }
            Kind::Struct(message) => {
                let fields = message.fields.iter().map(|f| self.node(&f.value).cost);
                Node { cost: fields.fold(MESSAGE, Size::plus), ..Node::default() }
            }
            Kind::Comprehension(c) => self.comprehension(c),
            Kind::Bind(bind) => self.bind(bind),
            Kind::OptMap(map) => self.opt_map(map),
        }
    }

    fn select(&mut self, select: &Select) -> Node {
        let operand = self.node(&select.operand);
        if select.mode == SelectMode::Test {
            return Node { cost: operand.cost, size: Some(fixed(1)), ..Node::default() };
        }
        let counted = select.mode == SelectMode::Optional
            || matches!(select.operand.ty, Type::Map(_) | Type::Object(_) | Type::Opaque(_) | Type::Param(_));
        let cost = if counted { operand.cost.plus(fixed(1)) } else { operand.cost };
        let mut path = operand.path;
        if !path.is_empty() {
            path.push(select.field.to_string());
        }
        Node { cost, path, ..Node::default() }
    }

    fn call(&mut self, call: &Call) -> Node {
        let exprs: Vec<&Expr> = call.target.iter().chain(&call.args).collect();
        let args: Vec<Node> = exprs.iter().map(|a| self.node(a)).collect();
        let own = args.iter().fold(Size::default(), |sum, a| sum.plus(a.cost));
        if &*call.name == "dyn" {
            let mut node = args.into_iter().next().unwrap_or_default();
            node.cost = own.plus(fixed(1));
            node.path.clear();
            return node;
        }
        let mut node = Node::default();
        let mut cost: Option<Size> = None;
        for overload in &call.overloads {
            let (one, size) = self.overload(call, overload, &exprs, &args);
            cost = Some(cost.map_or(one, |known| known.union(one)));
            if let Some(size) = size {
                node.size = Some(node.size.map_or(size, |known| known.union(size)));
            }
            let step = match *overload {
                "index_list" => "@items",
                "index_map" => "@values",
                _ => continue,
            };
            node.size = args[0].entry.map(|e| e.value);
            node.path = args[0].path.clone();
            if !node.path.is_empty() {
                node.path.push(step.to_owned());
            }
        }
        if call.overload == Some("add_list") {
            node.entry = union_entries(args[0].entry, args[1].entry);
        }
        node.cost = own.plus(cost.unwrap_or_default());
        node
    }

    /// The cost of one overload beyond its arguments', and the size of its result where that is known.
    fn overload(&self, call: &Call, overload: &str, exprs: &[&Expr], args: &[Node]) -> (Size, Option<Size>) {
        let size = |at: usize| args.get(at).map_or(UNKNOWN, Node::size);
        let read = |at: usize| size(at).scaled(PER_CHAR);
        let one = fixed(1);
        let matching = || size(0).plus(one).scaled(PER_CHAR).times(size(1).scaled(PER_PATTERN_CHAR));
        match call.function.map_or(Cost::Standard, |f| f.cost) {
            Cost::One => (one, None),
            Cost::Standard => self.standard(overload, exprs, args),
            Cost::Check => (fixed(cost::CHECK), None),
            Cost::Selector => {
                let s = size(1);
                (Size { min: cost::selector(s.min), max: cost::selector(s.max) }, None)
            }
            Cost::Walk => match exprs[0].ty {
                Type::List(ref list) => {
                    let mut element = one;
                    if matches!(list.element, Type::String | Type::Bytes) {
                        let mut path = args[0].path.clone();
                        if !path.is_empty() {
                            path.push("@items".to_owned());
                        }
                        element = element.plus(self.declared(&path).unwrap_or(UNKNOWN).scaled(PER_CHAR));
                    }
                    (size(0).times(element), None)
                }
                _ => (read(0), None),
            },
            Cost::Parse { sized } => (read(0), sized.then(|| size(0))),
            Cost::Replace => (size(0).scaled(2.0 * PER_CHAR), Some(replaced(size(0), size(1), size(2)))),
            Cost::Split => {
                let limit = match exprs.get(2).map(|e| &e.kind) {
                    Some(Kind::Literal(Val::Int(limit))) => u64::try_from(*limit).unwrap_or(u64::MAX),
                    _ => size(0).max,
                };
                (size(0).scaled(2.0 * PER_CHAR), Some(Size { min: 0, max: limit }))
            }
            Cost::Join => {
                let mut path = args[0].path.clone();
                if !path.is_empty() {
                    path.push("@items".to_owned());
                }
                let list = size(0);
                let mut out = list.times(self.declared(&path).unwrap_or(UNKNOWN));
                if args.len() > 1 {
                    let between = Size { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
                    out = out.plus(size(1).times(between));
                }
                (out.scaled(PER_CHAR), Some(out))
            }
            Cost::Find => (matching(), Some(Size { min: 0, max: size(0).max })),
            Cost::Ip if overload == "cidr_ip" => (one, None),
            Cost::Ip => (read(0), None),
            Cost::Canonical => (size(0).scaled(2.0 * PER_CHAR), None),
            Cost::ContainsIp | Cost::ContainsCidr => {
                let address = Size { min: 4, max: 16 };
                let mut cost = address.plus(address).scaled(PER_CHAR);
                if call.function.is_some_and(|f| f.cost == Cost::ContainsCidr) {
                    cost = cost.plus(address.scaled(PER_CHAR)).plus(one);
                }
                if overload.ends_with("_string") {
                    cost = cost.plus(read(1));
                }
                (cost, None)
            }
            Cost::Validate => (read(1).scaled(FORMAT_PATTERN_CHARS * PER_PATTERN_CHAR), None),
            Cost::ListOut => {
                let literal = |at: usize, or: u64| match exprs.get(at).map(|e| &e.kind) {
                    Some(Kind::Literal(Val::Int(n))) => u64::try_from(*n).unwrap_or(0),
                    _ => or,
                };
                let out = match overload {
                    "list_slice" => fixed(literal(2, size(0).max).saturating_sub(literal(1, 0))),
                    "lists_range" => fixed(literal(0, u64::MAX)),
                    _ => size(0),
                };
                (out.plus(fixed(11)), Some(out))
            }
            Cost::Flatten => {
                let levels = match exprs.get(1).map(|e| &e.kind) {
                    None => 1.0,
                    Some(Kind::Literal(Val::Int(levels))) => *levels as f64,
                    Some(_) => u64::MAX as f64,
                };
                (size(0).scaled(levels).plus(fixed(11)), Some(size(0)))
            }
            Cost::SelfCompare(at) => {
                let texts = overload.contains("string") || overload.contains("bytes");
                let squared = size(at).times(size(at));
                (squared.scaled(if texts { 2.1 } else { 2.0 }).plus(fixed(11)), Some(squared))
            }
            Cost::Sets(times) => (size(0).times(size(1)).times(fixed(times)).plus(one), None),
        }
    }

    fn standard(&self, overload: &str, exprs: &[&Expr], args: &[Node]) -> (Size, Option<Size>) {
        let size = |at: usize| args.get(at).map_or(UNKNOWN, Node::size);
        let read = |at: usize| size(at).scaled(PER_CHAR);
        let one = fixed(1);
        match overload {
            "string_format" => (read(0), None),
            "string_to_bytes" => (read(0), Some(Size { min: size(0).min, max: size(0).max.saturating_mul(4) })),
            "bytes_to_string" => (read(0), Some(Size { min: size(0).min / 4, max: size(0).max })),
            "strings_quote" => {
                let s = size(0);
                let out = Size { min: s.min.saturating_add(2), max: s.max.saturating_mul(2).saturating_add(2) };
                (read(0), Some(out))
            }
            "starts_with_string" | "ends_with_string" => (read(1), None),
            "in_list" => (size(1), None),
            "matches_string" => {
                let text = size(0).plus(one).scaled(PER_CHAR);
                (text.times(size(1).scaled(PER_PATTERN_CHAR)), None)
            }
            "contains_string" => (read(0).times(read(1)), None),
            "add_string" | "add_bytes" => {
                let out = size(0).plus(size(1));
                (out.scaled(PER_CHAR), Some(out))
            }
            "add_list" => (one, Some(size(0).plus(size(1)))),
            "equals" if exprs[0].ty == exprs[1].ty && matches!(exprs[0].ty, Type::Opaque(_)) => {
                let max = match exprs[0].ty {
                    Type::Opaque(Opaque::Format) => scale(FORMAT_NAME_CHARS, PER_CHAR),
                    Type::Opaque(Opaque::Url) => scale(size(1).max, PER_CHAR),
                    _ => 1,
                };
                (Size { min: 1, max }, None)
            }
            "equals"
            | "not_equals"
            | "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes" => {
                let max = size(0).max.min(size(1).max);
                (Size { min: u64::from(max > 0), max }.scaled(PER_CHAR), None)
            }
            _ => (one, None),
        }
    }

    fn comprehension(&mut self, c: &Comprehension) -> Node {
        let range = self.node(&c.range);
        let init = self.node(&c.init);
        let slot = c.slot as usize;
        let list = range.entry.map_or(matches!(c.range.ty, Type::List(_)), |e| e.list);
        let at = |step: &str| {
            let mut path = range.path.clone();
            if !path.is_empty() {
                path.push(step.to_owned());
            }
            path
        };
        let variable = |path: Vec<String>, size: Option<Size>| Node { path, size, ..Node::default() };
        let (key, value) = (range.entry.map(|e| e.key), range.entry.map(|e| e.value));
        let key_step = if list { "@indices" } else { "@keys" };
        let value_step = if list { "@items" } else { "@values" };
        let (first, second) = match (&c.var2, list) {
            (Some(_), _) => (variable(at(key_step), key), Some(variable(at(value_step), value))),
            (None, true) => (variable(at(value_step), value), None),
            (None, false) => (variable(at(key_step), key), None),
        };
        let accumulator = Node { path: Vec::new(), ..init.clone() };
        self.set(slot, accumulator);
        self.set(slot + 1, first);
        if let Some(second) = second {
            self.set(slot + 2, second);
        }
        let condition = self.node(&c.condition);
        let step = self.node(&c.step);
        let result = self.node(&c.result);
        let turns = range.size();
        let cost = range.cost.plus(init.cost).plus(result.cost).plus(turns.times(step.cost.plus(condition.cost)));
        match c.init.kind {
            Kind::Literal(_) => Node { cost, size: init.size, ..Node::default() },
            _ => Node { cost, size: Some(turns), entry: step.entry, path: Vec::new() },
        }
    }

    fn set(&mut self, slot: usize, node: Node) {
        if let Some(local) = self.locals.get_mut(slot) {
            *local = node;
        }
    }

    fn bind(&mut self, bind: &Bind) -> Node {
        let init = self.node(&bind.init);
        self.set(bind.slot as usize, init.clone());
        let body = self.node(&bind.body);
        Node { cost: LIST.plus(init.cost).plus(body.cost), path: Vec::new(), ..body }
    }

    fn opt_map(&mut self, map: &OptMap) -> Node {
        let target = self.node(&map.target);
        let value = Node { cost: target.cost.plus(fixed(1)), ..target.clone() };
        self.set(map.slot as usize, Node { size: None, path: Vec::new(), ..value.clone() });
        let body = self.node(&map.body);
        let present = LIST.plus(value.cost).plus(body.cost).plus(fixed(u64::from(!map.flat)));
        Node { cost: target.cost.plus(fixed(1)).plus(present.union(fixed(1))), ..Node::default() }
    }
}

/// Whether values of a type are all of one size.
fn scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(inner) => scalar(inner),
        _ => false,
    }
}

fn sizes(nodes: &[Node]) -> Size {
    nodes.iter().map(Node::size).reduce(Size::union).unwrap_or_default()
}

fn container<'n>(base: Size, len: usize, parts: impl Iterator<Item = &'n Node>, entry: Entry) -> Node {
    let cost = parts.fold(base, |sum, part| sum.plus(part.cost));
    Node { cost, size: Some(fixed(len as u64)), entry: Some(entry), path: Vec::new() }
}

fn union_entries(a: Option<Entry>, b: Option<Entry>) -> Option<Entry> {
    let (a, b) = (a?, b?);
    Some(Entry { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) })
}

/// The size of a text in which all of one part are replaced.
fn replaced(text: Size, old: Size, new: Size) -> Size {
    let (mut count, mut kept) = (Size::default(), Size::default());
    if old.min == 0 {
        // Replacing nothing puts the new text around each character.
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if new.max <= old.min {
        kept.max = text.max;
    } else {
        count.max = text.max.div_ceil(old.min);
    }
    if old.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if old.max <= new.min {
        kept.min = text.min;
    } else {
        count.min = text.min.div_ceil(old.max);
    }
    count.times(new).plus(kept)
}
