//! Values while an expression runs: borrowed from the data where they came from there.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use ironkeel_object::{Map, Number, Quantity, Timestamp, Value};

use crate::authorizer::{AuthorizationDecision, AuthorizerHook, ResourceCheck};
use crate::library::format::NamedFormat;
use crate::library::ip::{Cidr, Ip};
use crate::library::semver::Semver;
use crate::library::url::Url;
use crate::types::{ListKind, ListType, ObjectType, Opaque, Type};
use crate::{EvalError, convert};

/// A value of CEL. Clones are cheap: nothing below is copied.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    /// `null`.
    Null,
    /// `bool`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// `uint`.
    Uint(u64),
    /// `double`.
    Double(f64),
    /// `string`.
    String(Text<'a>),
    /// `bytes`.
    Bytes(Arc<[u8]>),
    /// `timestamp`.
    Timestamp(Timestamp),
    /// `duration`, in nanoseconds.
    Duration(i64),
    /// `list`.
    List(List<'a>),
    /// `map`.
    Map(MapVal<'a>),
    /// An object with declared fields.
    Object(&'a Map, &'a ObjectType),
    /// What a literal such as `Object{…}` made.
    Message(Arc<Message<'a>>),
    /// A type.
    Type(Type),
    /// `optional`.
    Optional(Option<Arc<Val<'a>>>),
    /// A value of a library's type.
    Opaque(Arc<OpaqueVal<'a>>),
    /// The composed variable, whose fields are programs.
    Variables,
}

/// Text, borrowed or shared.
#[derive(Clone)]
pub enum Text<'a> {
    /// From the data or the program.
    Borrowed(&'a str),
    /// Made while running.
    Shared(Arc<str>),
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// From the data.
    Tree(&'a [Value], &'a ListType),
    /// Made while running.
    Owned(Arc<Vec<Val<'a>>>),
}

/// A map.
#[derive(Clone, Debug)]
pub enum MapVal<'a> {
    /// From the data, with its values' type.
    Tree(&'a Map, &'a Type),
    /// Made while running.
    Owned(Arc<Entries<'a>>),
}

/// Entries of a made map: by key, the key as written and the value.
pub type Entries<'a> = BTreeMap<MapKey<'a>, (Val<'a>, Val<'a>)>;

/// A map's key as it is compared: numbers of all types are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MapKey<'a> {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Number(i128),
    /// Text.
    Text(Text<'a>),
}

/// A message literal's value.
#[derive(Debug)]
pub struct Message<'a> {
    pub(crate) ty: Type,
    pub(crate) name: Arc<str>,
    pub(crate) fields: Vec<(Arc<str>, Val<'a>)>,
}

/// A value of a library's type.
pub enum OpaqueVal<'a> {
    /// `kubernetes.Quantity`.
    Quantity(Quantity),
    /// `kubernetes.URL`.
    Url(Url),
    /// `net.IP`.
    Ip(Ip),
    /// `net.CIDR`.
    Cidr(Cidr),
    /// `kubernetes.Semver`.
    Semver(Semver),
    /// `kubernetes.NamedFormat`.
    Format(&'static NamedFormat),
    /// The authorizer and what is asked of it so far.
    Authorizer(Asking<'a>),
    /// Its answer.
    Decision(AuthorizationDecision),
}

/// A question to the authorizer, while it is put together.
#[derive(Clone)]
pub struct Asking<'a> {
    pub(crate) hook: &'a dyn AuthorizerHook,
    pub(crate) service_account: Option<(String, String)>,
    pub(crate) stage: AskingStage,
}

/// How much of the question is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AskingStage {
    /// `authorizer`.
    Nothing,
    /// `.path(…)`.
    Path(String),
    /// `.group(…)`.
    Group(String),
    /// `.resource(…)` and what follows; the error of a selector that could not be read.
    Resource(ResourceCheck),
}

impl Message<'_> {
    /// Refuses an `Object.x{…}` that stands in another field than `x`.
    fn check_names(&self) -> Result<(), EvalError> {
        self.fields.iter().try_for_each(|(field, value)| check_name(&self.name, Some(field), value))
    }
}

fn check_name(parent: &str, field: Option<&str>, value: &Val<'_>) -> Result<(), EvalError> {
    let expected = field.map_or_else(|| parent.to_owned(), |field| format!("{parent}.{field}"));
    match value {
        Val::Message(m) if *m.name == *expected => m.check_names(),
        Val::Message(m) => Err(EvalError::Refused(format!(
            "unexpected type name {:?}, expected {expected:?}, which matches field name path from root Object type",
            m.name
        ))),
        Val::List(List::Owned(items)) => items.iter().try_for_each(|item| check_name(&expected, None, item)),
        Val::Optional(Some(inner)) => check_name(parent, field, inner),
        _ => Ok(()),
    }
}

impl<'a> OpaqueVal<'a> {
    pub(crate) fn authorizer(hook: &'a dyn AuthorizerHook) -> Self {
        OpaqueVal::Authorizer(Asking { hook, service_account: None, stage: AskingStage::Nothing })
    }

    pub(crate) fn resource_check(hook: &'a dyn AuthorizerHook, check: ResourceCheck) -> Self {
        OpaqueVal::Authorizer(Asking { hook, service_account: None, stage: AskingStage::Resource(check) })
    }

    pub(crate) fn opaque(&self) -> Opaque {
        match self {
            OpaqueVal::Quantity(_) => Opaque::Quantity,
            OpaqueVal::Url(_) => Opaque::Url,
            OpaqueVal::Ip(_) => Opaque::Ip,
            OpaqueVal::Cidr(_) => Opaque::Cidr,
            OpaqueVal::Semver(_) => Opaque::Semver,
            OpaqueVal::Format(_) => Opaque::Format,
            OpaqueVal::Authorizer(a) => match a.stage {
                AskingStage::Nothing => Opaque::Authorizer,
                AskingStage::Path(_) => Opaque::PathCheck,
                AskingStage::Group(_) => Opaque::GroupCheck,
                AskingStage::Resource(_) => Opaque::ResourceCheck,
            },
            OpaqueVal::Decision(_) => Opaque::Decision,
        }
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (OpaqueVal::Quantity(a), OpaqueVal::Quantity(b)) => a == b,
            (OpaqueVal::Url(a), OpaqueVal::Url(b)) => a == b,
            (OpaqueVal::Ip(a), OpaqueVal::Ip(b)) => a == b,
            (OpaqueVal::Cidr(a), OpaqueVal::Cidr(b)) => a == b,
            (OpaqueVal::Semver(a), OpaqueVal::Semver(b)) => a == b,
            (OpaqueVal::Format(a), OpaqueVal::Format(b)) => a.name == b.name,
            (OpaqueVal::Authorizer(a), OpaqueVal::Authorizer(b)) => {
                a.service_account == b.service_account && a.stage == b.stage
            }
            (OpaqueVal::Decision(a), OpaqueVal::Decision(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Debug for OpaqueVal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.opaque().name())
    }
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(s) => s,
            Text::Shared(s) => s,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl From<String> for Text<'_> {
    fn from(s: String) -> Self {
        Text::Shared(s.into())
    }
}

impl<'a> From<&'a str> for Val<'a> {
    fn from(s: &'a str) -> Self {
        Val::String(Text::Borrowed(s))
    }
}

impl From<String> for Val<'_> {
    fn from(s: String) -> Self {
        Val::String(s.into())
    }
}

impl From<bool> for Val<'_> {
    fn from(b: bool) -> Self {
        Val::Bool(b)
    }
}

impl From<i64> for Val<'_> {
    fn from(i: i64) -> Self {
        Val::Int(i)
    }
}

impl<'a> From<Vec<Val<'a>>> for Val<'a> {
    fn from(items: Vec<Val<'a>>) -> Self {
        Val::List(List::Owned(Arc::new(items)))
    }
}

impl<'a> From<OpaqueVal<'a>> for Val<'a> {
    fn from(value: OpaqueVal<'a>) -> Self {
        Val::Opaque(Arc::new(value))
    }
}

impl<'a> List<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            List::Tree(items, _) => items.len(),
            List::Owned(items) => items.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An element; `None` beyond the end.
    pub fn get(&self, i: usize) -> Option<Result<Val<'a>, EvalError>> {
        match self {
            List::Tree(items, ty) => items.get(i).map(|item| convert::to_val(item, &ty.element)),
            List::Owned(items) => items.get(i).cloned().map(Ok),
        }
    }

    /// All elements.
    pub fn iter(&self) -> impl Iterator<Item = Result<Val<'a>, EvalError>> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    pub(crate) fn kind(&self) -> &'a ListKind {
        match self {
            List::Tree(_, ty) => &ty.kind,
            List::Owned(_) => &ListKind::Atomic,
        }
    }
}

impl<'a> MapVal<'a> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        match self {
            MapVal::Tree(map, _) => map.len(),
            MapVal::Owned(map) => map.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value under a key.
    pub fn get(&self, key: &Val<'a>) -> Option<Result<Val<'a>, EvalError>> {
        match self {
            MapVal::Tree(map, ty) => map.get(key.as_str()?).map(|v| convert::to_val(v, ty)),
            MapVal::Owned(map) => map.get(&MapKey::of(key)?).map(|(_, v)| Ok(v.clone())),
        }
    }

    /// The value under a text.
    pub fn get_str(&self, key: &str) -> Option<Result<Val<'a>, EvalError>> {
        match self {
            MapVal::Tree(map, ty) => map.get(key).map(|v| convert::to_val(v, ty)),
            // The text lives shorter than the map's keys do: compare by a copy.
            MapVal::Owned(map) => map.get(&MapKey::Text(Text::Shared(key.into()))).map(|(_, v)| Ok(v.clone())),
        }
    }

    /// All keys with their values, sorted.
    pub fn entries(&self) -> Result<Vec<(Val<'a>, Val<'a>)>, EvalError> {
        match self {
            MapVal::Tree(map, ty) => {
                map.iter().map(|(k, v)| Ok((Val::from(k.as_ref()), convert::to_val(v, ty)?))).collect()
            }
            MapVal::Owned(map) => Ok(map.values().cloned().collect()),
        }
    }
}

impl<'a> MapKey<'a> {
    pub(crate) fn of(val: &Val<'a>) -> Option<MapKey<'a>> {
        Some(match val {
            Val::Bool(b) => MapKey::Bool(*b),
            Val::Int(i) => MapKey::Number((*i).into()),
            Val::Uint(u) => MapKey::Number((*u).into()),
            Val::Double(d) if d.fract() == 0.0 && d.abs() < 1e19 => MapKey::Number(*d as i128),
            Val::String(s) => MapKey::Text(s.clone()),
            _ => return None,
        })
    }
}

impl<'a> Val<'a> {
    /// The boolean in it.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Val::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The text in it.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Val::String(s) => Some(s),
            _ => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Val::Null)
    }

    /// The type it has now.
    pub fn type_of(&self) -> Type {
        match self {
            Val::Null => Type::Null,
            Val::Bool(_) => Type::Bool,
            Val::Int(_) => Type::Int,
            Val::Uint(_) => Type::Uint,
            Val::Double(_) => Type::Double,
            Val::String(_) => Type::String,
            Val::Bytes(_) => Type::Bytes,
            Val::Timestamp(_) => Type::Timestamp,
            Val::Duration(_) => Type::Duration,
            Val::List(_) => Type::list(Type::Dyn),
            Val::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Val::Object(_, ty) => Type::object(ObjectType::new(ty.name())),
            Val::Message(m) => m.ty.clone(),
            Val::Type(_) => Type::type_of(Type::Dyn),
            Val::Optional(_) => Type::optional(Type::Dyn),
            Val::Opaque(o) => Type::Opaque(o.opaque()),
            Val::Variables => Type::object(ObjectType::new("kubernetes.variables")),
        }
    }

    /// What `size()` tells; 1 for what has no size, as the cost model counts it.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Val::String(s) => s.chars().count() as u64,
            Val::Bytes(b) => b.len() as u64,
            Val::List(l) => l.len() as u64,
            Val::Map(m) => m.len() as u64,
            Val::Object(m, _) => m.len() as u64,
            Val::Optional(Some(v)) => v.size(),
            Val::Opaque(o) => match &**o {
                OpaqueVal::Ip(ip) => ip.size(),
                OpaqueVal::Cidr(cidr) => cidr.size(),
                _ => 1,
            },
            _ => 1,
        }
    }

    /// A field of an object, or a map's value; `None` where it is absent.
    pub(crate) fn field(&self, name: &str) -> Option<Result<Val<'a>, EvalError>> {
        match self {
            Val::Map(m) => m.get_str(name),
            Val::Object(map, ty) => {
                let field = ty.get(name)?;
                // A field that is null is absent: trees from typed sources do not keep it.
                map.get(&field.json_name).map(|v| convert::to_val(v, &field.ty))
            }
            Val::Message(m) => m.fields.iter().find(|(n, _)| &**n == name).map(|(_, v)| Ok(v.clone())),
            _ => None,
        }
    }

    /// The tree that JSON would show: what a mutating policy's `Object{…}` and `[JSONPatch{…}]` mean.
    pub fn to_value(&self) -> Result<Value, EvalError> {
        Ok(match self {
            Val::Null => Value::Null,
            Val::Bool(b) => Value::Bool(*b),
            Val::Int(i) => Value::Number(Number::Int(*i)),
            Val::Uint(u) => Value::Number(i64::try_from(*u).map_or(Number::Float(*u as f64), Number::Int)),
            Val::Double(d) if d.is_finite() => Value::Number(Number::Float(*d)),
            Val::Double(d) => return Err(EvalError::NotJson(d.to_string())),
            Val::String(s) => Value::String((**s).to_owned()),
            Val::Bytes(b) => Value::String(convert::to_base64(b)),
            Val::Timestamp(t) => Value::String(crate::time::format(*t)),
            Val::Duration(d) => Value::String(crate::time::format_duration(*d)),
            Val::List(List::Tree(items, _)) => Value::Array(items.to_vec()),
            Val::List(List::Owned(items)) => Value::Array(items.iter().map(Val::to_value).collect::<Result<_, _>>()?),
            Val::Map(MapVal::Tree(map, _)) | Val::Object(map, _) => Value::Object((*map).clone()),
            Val::Map(MapVal::Owned(map)) => {
                let mut out = Map::with_capacity(map.len());
                for (key, value) in map.values() {
                    let key = match key {
                        Val::String(s) => (**s).to_owned(),
                        Val::Bool(b) => b.to_string(),
                        Val::Int(i) => i.to_string(),
                        Val::Uint(u) => u.to_string(),
                        other => return Err(EvalError::NotJson(other.type_of().to_string())),
                    };
                    out.insert(key, value.to_value()?);
                }
                Value::Object(out)
            }
            Val::Message(m) => {
                if &*m.name == "Object" {
                    m.check_names()?;
                }
                let mut out = Map::with_capacity(m.fields.len());
                for (name, value) in &m.fields {
                    out.insert(name.to_string(), value.to_value()?);
                }
                Value::Object(out)
            }
            Val::Optional(Some(v)) => v.to_value()?,
            Val::Optional(None) => Value::Null,
            other => return Err(EvalError::NotJson(other.type_of().to_string())),
        })
    }

    /// CEL's `==`: never fails, values of unlike types differ, numbers are one.
    pub fn equals(&self, other: &Val<'a>) -> bool {
        match (self, other) {
            (Val::Null, Val::Null) | (Val::Variables, Val::Variables) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::String(a), Val::String(b)) => a == b,
            (Val::Bytes(a), Val::Bytes(b)) => a == b,
            (Val::Timestamp(a), Val::Timestamp(b)) => a == b,
            (Val::Duration(a), Val::Duration(b)) => a == b,
            (Val::List(a), Val::List(b)) => convert::lists_equal(a, b),
            (Val::Map(a), Val::Map(b)) => maps_equal(a, b),
            (Val::Object(a, at), Val::Object(b, bt)) => at.name() == bt.name() && objects_equal(a, b, at),
            (Val::Message(a), Val::Message(b)) => {
                a.name == b.name
                    && a.fields.len() == b.fields.len()
                    && a.fields.iter().all(|(n, v)| b.fields.iter().any(|(m, w)| n == m && v.equals(w)))
            }
            (Val::Type(a), Val::Type(b)) => a.runtime_name() == b.runtime_name(),
            (Val::Optional(a), Val::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.equals(b),
                _ => false,
            },
            (Val::Opaque(a), Val::Opaque(b)) => a.equals(b),
            (a, b) => compare_numbers(a, b) == Some(Ordering::Equal),
        }
    }
}

fn maps_equal<'a>(a: &MapVal<'a>, b: &MapVal<'a>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let Ok(entries) = a.entries() else { return false };
    entries.iter().all(|(key, value)| matches!(b.get(key), Some(Ok(other)) if value.equals(&other)))
}

fn objects_equal<'a>(a: &'a Map, b: &'a Map, ty: &'a ObjectType) -> bool {
    a.len() == b.len()
        && a.iter().all(|(key, value)| {
            let Some(other) = b.get(key) else { return false };
            let field = crate::escaping::escape(key).and_then(|name| ty.get(&name).map(|f| &f.ty));
            match field {
                None => value == other,
                Some(ty) => match (convert::to_val(value, ty), convert::to_val(other, ty)) {
                    (Ok(a), Ok(b)) => a.equals(&b),
                    _ => value == other,
                },
            }
        })
}

/// Compares numbers of any types; `None` for NaN and for what is no number.
pub(crate) fn compare_numbers(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    let whole = |v: &Val<'_>| match v {
        Val::Int(i) => Some(i128::from(*i)),
        Val::Uint(u) => Some(i128::from(*u)),
        _ => None,
    };
    match (a, b) {
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Double(d), other) => compare_double(*d, whole(other)?),
        (other, Val::Double(d)) => compare_double(*d, whole(other)?).map(Ordering::reverse),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

fn compare_double(d: f64, whole: i128) -> Option<Ordering> {
    if d.is_nan() {
        return None;
    }
    if d >= 1e20 {
        return Some(Ordering::Greater);
    }
    if d <= -1e20 {
        return Some(Ordering::Less);
    }
    let floor = d.floor();
    Some((floor as i128).cmp(&whole).then(if d > floor { Ordering::Greater } else { Ordering::Equal }))
}
