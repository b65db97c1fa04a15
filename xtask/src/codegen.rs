//! `cargo xtask codegen`: writes the `schema` tables from the API's facts.
//!
//! The facts (types.json, resources.json) stand outside this repository; their folder is
//! `$IRONKEEL_FACTS` or `../shared/facts`. `--check` compares instead of writing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct FactType {
    fields: Option<Vec<FactField>>,
    base: Option<String>,
    #[serde(default)]
    values: Vec<Value>,
    #[serde(default)]
    markers: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct FactField {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    #[serde(default)]
    inline: bool,
    #[serde(default)]
    ptr: bool,
    omit: Option<String>,
    pb: Option<u32>,
    #[serde(rename = "patchStrategy")]
    patch_strategy: Option<String>,
    #[serde(rename = "patchMergeKey")]
    patch_merge_key: Option<String>,
    #[serde(default)]
    markers: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FactResource {
    group: String,
    version: String,
    resource: String,
    singular: String,
    kind: String,
    scope: String,
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    subresources: Vec<FactSubresource>,
}

#[derive(Deserialize)]
struct FactSubresource {
    name: String,
    kind: String,
    group: Option<String>,
    version: Option<String>,
    verbs: Vec<String>,
}

/// The folder of the facts, when this machine has one.
pub(crate) fn facts_dir(root: &Path) -> Option<PathBuf> {
    let dir = std::env::var_os("IRONKEEL_FACTS").map_or_else(|| root.join("../shared/facts"), PathBuf::from);
    dir.join("types.json").is_file().then_some(dir)
}

/// Generates every table as `(path below the repository, text)`.
pub(crate) fn generate(facts: &Path) -> Result<Vec<(String, String)>> {
    let read = |name: &str| -> Result<String> {
        std::fs::read_to_string(facts.join(name)).with_context(|| format!("reading {name} of the facts"))
    };
    let types: BTreeMap<String, FactType> = serde_json::from_str(&read("types.json")?)?;
    let resources: Vec<FactResource> = serde_json::from_str(&read("resources.json")?)?;
    let tables = Tables::new(&types);
    let header = |what: &str| {
        format!("//! {what}\n//!\n//! Written by `cargo xtask codegen` from the API's facts; do not edit.\n\n")
    };
    let mut files = crate::codegen_grpc::generate(facts)?;
    files.extend([
        (
            "crates/schema/src/generated/mod.rs".into(),
            header("The generated rows.") + "pub(crate) mod resources;\npub(crate) mod types;\n",
        ),
        ("crates/schema/src/generated/types.rs".into(), header("One row a type of the API.") + &tables.types()?),
        (
            "crates/schema/src/generated/resources.rs".into(),
            header("One row a served resource.") + &tables.resources(&resources)?,
        ),
        (
            "crates/auth/src/bootstrap/generated.rs".into(),
            header("The default roles and bindings.") + &crate::codegen_rbac::table(&read("rbac-bootstrap.json")?)?,
        ),
        ("crates/openapi/build/generated/mod.rs".into(), header("The generated rows.") + "pub(crate) mod described;\n"),
        (
            "crates/openapi/build/generated/described.rs".into(),
            header("Kinds whose Rust types carry the sentences that describe their fields.") + &described(&resources),
        ),
        ("crates/kinds/src/generated/mod.rs".into(), header("The generated rows.") + "pub(crate) mod columns;\n"),
        (
            "crates/kinds/src/generated/columns.rs".into(),
            header("Columns of `kubectl get`, by kind.") + &crate::codegen_columns::columns(&read("columns.json")?)?,
        ),
    ]);
    Ok(files)
}

struct Tables<'a> {
    types: &'a BTreeMap<String, FactType>,
    ids: BTreeMap<&'a str, usize>,
    enums: BTreeMap<&'a str, usize>,
}

impl<'a> Tables<'a> {
    fn new(types: &'a BTreeMap<String, FactType>) -> Self {
        let ids = types.iter().filter(|(n, t)| t.fields.is_some() && special(n).is_none());
        let enums = types.iter().filter(|(_, t)| t.base.as_deref() == Some("string") && !t.values.is_empty());
        Tables {
            types,
            ids: ids.enumerate().map(|(i, (n, _))| (n.as_str(), i)).collect(),
            enums: enums.enumerate().map(|(i, (n, _))| (n.as_str(), i)).collect(),
        }
    }

    fn shape(&self, ty: &str) -> Result<String> {
        if let Some(s) = special(ty) {
            return Ok(match s {
                "SchemaOrArray" | "SchemaOrBool" | "SchemaOrStringArray" => {
                    format!("Shape::{s}(TypeId({}))", self.ids["apiextensions/v1.JSONSchemaProps"])
                }
                s => format!("Shape::{s}"),
            });
        }
        if ty == "[]byte" {
            return Ok("Shape::Bytes".into());
        }
        if let Some(item) = ty.strip_prefix("[]") {
            return Ok(format!("Shape::List(&{})", self.shape(item)?));
        }
        if let Some(rest) = ty.strip_prefix("map[") {
            let (_, value) = rest.split_once(']').context("map without ]")?;
            return Ok(format!("Shape::Map(&{})", self.shape(value)?));
        }
        let simple = match ty {
            "string" => Some("String"),
            "bool" => Some("Bool"),
            "int32" => Some("Int32"),
            "int64" | "int" => Some("Int64"),
            "float64" => Some("Float64"),
            "any" => Some("Any"),
            _ => None,
        };
        if let Some(s) = simple {
            return Ok(format!("Shape::{s}"));
        }
        if let Some(i) = self.enums.get(ty) {
            return Ok(format!("Shape::Enum(&ENUMS[{i}])"));
        }
        if let Some(i) = self.ids.get(ty) {
            return Ok(format!("Shape::Struct(TypeId({i}))"));
        }
        match self.types.get(ty).and_then(|t| t.base.as_deref()) {
            Some(_) if ty.ends_with(".Verbs") || ty.ends_with(".ExtraValue") => Ok("Shape::StringItems".into()),
            Some(base) => self.shape(base),
            None => bail!("no type {ty}"),
        }
    }

    /// Follows aliases (`type Rule = v1.Rule`) to the type that has the fields.
    fn resolve<'n>(&'n self, name: &'n str) -> &'n str {
        match self.types.get(name).and_then(|t| t.base.as_deref()) {
            Some(base) if self.types.contains_key(base) => self.resolve(base),
            _ => name,
        }
    }

    /// The JSON fields of a type, inlined ones merged in, by name.
    fn json_fields(&self, name: &str, out: &mut BTreeMap<&'a str, &'a FactField>) -> Result<()> {
        let t = self.types.get(self.resolve(name)).with_context(|| format!("no type {name}"))?;
        for f in t.fields.iter().flatten() {
            if f.inline {
                self.json_fields(&f.ty, out)?;
            } else if !f.name.is_empty() && f.name != "-" {
                out.insert(&f.name, f);
            }
        }
        Ok(())
    }

    fn types(&self) -> Result<String> {
        let mut s =
            String::from("use crate::{Enum, Field, ListType, ProtoContent, ProtoField, Shape, Type, TypeId};\n\n");
        writeln!(s, "pub(crate) static ENUMS: [Enum; {}] = [", self.enums.len())?;
        for name in self.enums.keys() {
            let t = &self.types[*name];
            let closed =
                t.markers.contains_key("enum") || t.markers.contains_key("k8s:enum") || alpha(&t.markers, "+k8s:enum");
            let values: BTreeSet<&str> = t.values.iter().filter_map(Value::as_str).collect();
            writeln!(
                s,
                "    Enum {{ name: {name:?}, values: &{values:?}, closed: {closed} }},",
                values = values.iter().collect::<Vec<_>>()
            )?;
        }
        writeln!(s, "];\n\npub(crate) static TYPES: &[Type] = &[")?;
        for name in self.ids.keys() {
            let t = &self.types[*name];
            let mut fields = BTreeMap::new();
            self.json_fields(name, &mut fields)?;
            let atomic = marker(&t.markers, "structType") == Some("atomic");
            let own = t.fields.as_deref().unwrap_or_default();
            let meta = own.iter().any(|f| f.inline && f.ty == "meta/v1.TypeMeta");
            writeln!(s, "    Type {{ name: {name:?}, atomic: {atomic}, has_type_meta: {meta}, fields: &[")?;
            for f in fields.values() {
                writeln!(s, "        {},", self.field(f)?)?;
            }
            s.push_str("    ], proto: &[\n");
            let mut proto: Vec<&FactField> = own.iter().filter(|f| f.pb.is_some()).collect();
            proto.sort_by_key(|f| f.pb);
            for f in proto {
                let content = if f.inline {
                    format!("ProtoContent::Inline(TypeId({}))", self.ids[self.resolve(&f.ty)])
                } else {
                    let at = fields.keys().position(|k| *k == f.name).context("field out of place")?;
                    format!("ProtoContent::Field({at})")
                };
                let number = f.pb.unwrap_or_default();
                writeln!(s, "        ProtoField {{ number: {number}, content: {content}, pointer: {} }},", f.ptr)?;
            }
            s.push_str("    ] },\n");
        }
        s.push_str("];\n");
        Ok(s)
    }

    fn field(&self, f: &FactField) -> Result<String> {
        let m = &f.markers;
        let strategy = f.patch_strategy.as_deref().unwrap_or_default();
        let keys = m.get("listMapKey").or_else(|| m.get("k8s:listMapKey")).and_then(Value::as_array);
        let list = match marker(m, "listType").or_else(|| marker(m, "k8s:listType")) {
            Some("atomic") => "ListType::Atomic".to_owned(),
            Some("set") => "ListType::Set".to_owned(),
            Some("map") => {
                let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
                format!("ListType::Map(&{keys:?})")
            }
            _ => "ListType::Undeclared".to_owned(),
        };
        let atomic = marker(m, "mapType") == Some("atomic") || marker(m, "structType") == Some("atomic");
        let required =
            ["required", "k8s:required", "kubebuilder:validation:Required"].iter().any(|k| m.contains_key(*k))
                || alpha(m, "+k8s:required");
        let gates: Vec<&str> =
            m.get("featureGate").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        Ok(format!(
            "Field {{ name: {:?}, shape: {}, pointer: {}, omit_empty: {}, required: {required}, optional: {}, list: {list}, atomic: {atomic}, patch_merge: {}, patch_retain_keys: {}, merge_key: {:?}, default: {:?}, gates: &{gates:?} }}",
            f.name,
            self.shape(&f.ty)?,
            f.ptr,
            f.omit.is_some(),
            m.contains_key("optional") || m.contains_key("k8s:optional"),
            strategy.split(',').any(|p| p == "merge"),
            strategy.split(',').any(|p| p == "retainKeys"),
            f.patch_merge_key,
            marker(m, "default"),
        ))
    }

    fn resources(&self, rows: &[FactResource]) -> Result<String> {
        let mut s = String::from(
            "use std::borrow::Cow;\n\nuse crate::{Resource, Scope, Subresource, TypeId};\n\npub(crate) static RESOURCES: &[Resource] = &[\n",
        );
        for r in rows {
            let package = package(&r.group);
            let id = self
                .ids
                .get(format!("{package}/{}.{}", r.version, r.kind).as_str())
                .with_context(|| format!("no type for {}", r.kind))?;
            writeln!(
                s,
                "    Resource {{ group: {:?}, version: {:?}, plural: {:?}, singular: {:?}, kind: {:?}, scope: Scope::{}, verbs: &{:?}, short_names: &{:?}, categories: &{:?}, type_id: TypeId({id}), subresources: Cow::Borrowed(&[",
                r.group, r.version, r.resource, r.singular, r.kind, r.scope, r.verbs, r.short_names, r.categories
            )?;
            for sub in &r.subresources {
                let group = sub.group.as_deref().unwrap_or(&r.group);
                let version = sub.version.as_deref().unwrap_or(&r.version);
                let id = self.ids.get(format!("{}/{version}.{}", self::package(group), sub.kind).as_str());
                let id = id.map_or("None".to_owned(), |i| format!("Some(TypeId({i}))"));
                writeln!(
                    s,
                    "        Subresource {{ name: {:?}, group: {:?}, version: {:?}, kind: {:?}, verbs: &{:?}, type_id: {id} }},",
                    sub.name, sub.group, sub.version, sub.kind, sub.verbs
                )?;
            }
            s.push_str("    ]) },\n");
        }
        s.push_str("];\n");
        Ok(s)
    }
}

/// One row a kind: what adds its Rust type to a generator of schemas.
fn described(rows: &[FactResource]) -> String {
    let kinds = rows.iter().flat_map(|r| {
        let own = (r.group.as_str(), r.version.as_str(), r.kind.as_str());
        let subresources = r.subresources.iter().map(|s| {
            let group = s.group.as_deref().unwrap_or(&r.group);
            (group, s.version.as_deref().unwrap_or(&r.version), s.kind.as_str())
        });
        std::iter::once(own).chain(subresources)
    });
    // Options of connections are queries; no Rust type stands for them.
    let kinds: BTreeSet<String> = kinds
        .filter(|(_, _, kind)| !kind.ends_with("Options"))
        .map(|(group, version, kind)| {
            let go = match package(group) {
                "apiextensions" => "apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
                "apiregistration" => "kube-aggregator.pkg.apis.apiregistration".to_owned(),
                package => format!("api.{package}"),
            };
            format!("{go}.{version}.{kind}")
        })
        .collect();
    let mut s = String::from("use crate::{Add, add};\n\npub(crate) const KINDS: &[Add] = &[\n");
    for name in kinds {
        let _ = writeln!(s, "    add::<k8s_openapi::{}>,", name.replace('.', "::").replace('-', "_"));
    }
    s.push_str("];\n");
    s
}

fn package(group: &str) -> &str {
    match group {
        "" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        other => other.split('.').next().unwrap_or(other),
    }
}

/// Types whose JSON or protobuf form no table row can tell.
fn special(name: &str) -> Option<&'static str> {
    Some(match name {
        "api/resource.Quantity" => "Quantity",
        "util/intstr.IntOrString" => "IntOrString",
        "meta/v1.Time" => "Time",
        "meta/v1.MicroTime" => "MicroTime",
        "meta/v1.Duration" => "Duration",
        "meta/v1.FieldsV1" => "FieldsV1",
        "runtime.RawExtension" => "RawExtension",
        "apiextensions/v1.JSON" => "Json",
        "apiextensions/v1.JSONSchemaPropsOrArray" => "SchemaOrArray",
        "apiextensions/v1.JSONSchemaPropsOrBool" => "SchemaOrBool",
        "apiextensions/v1.JSONSchemaPropsOrStringArray" => "SchemaOrStringArray",
        _ => return None,
    })
}

fn marker<'m>(markers: &'m BTreeMap<String, Value>, key: &str) -> Option<&'m str> {
    match markers.get(key)? {
        Value::String(s) => Some(s),
        Value::Array(a) => a.first().and_then(Value::as_str),
        _ => None,
    }
}

/// A declarative marker that 1.36 wraps as `k8s:alpha(since: …)=+k8s:…`.
fn alpha(markers: &BTreeMap<String, Value>, what: &str) -> bool {
    markers
        .iter()
        .filter(|(k, _)| k.starts_with("k8s:alpha"))
        .any(|(_, v)| v.as_array().is_some_and(|a| a.iter().filter_map(Value::as_str).any(|s| s == what)))
}

/// Writes the tables, or with `check` fails when a committed one differs.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let Some(facts) = facts_dir(root) else {
        if check {
            println!("codegen: skipped: the API's facts are not on this machine (set IRONKEEL_FACTS)");
            return Ok(());
        }
        bail!("the API's facts are not on this machine: set IRONKEEL_FACTS to their folder");
    };
    for (path, text) in generate(&facts)? {
        let file = root.join(&path);
        if check {
            if std::fs::read_to_string(&file).unwrap_or_default() != text {
                bail!("{path} differs from what the facts say: run `cargo xtask codegen`");
            }
        } else {
            if let Some(dir) = file.parent() {
                std::fs::create_dir_all(dir)?;
            }
            std::fs::write(&file, text).with_context(|| format!("writing {path}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn committed_tables_are_what_the_facts_say() -> anyhow::Result<()> {
        // Without the facts on this machine it says that it was skipped.
        super::run(&crate::root(), true)
    }
}
