//! The Rust code of gRPC services (CRI, etcd): facts/grpc/*.json → a file descriptor set → prost and
//! tonic's generators.
//!
//! No protoc takes part: the descriptor is built here. The facts carry no comments, so the generated
//! files are exempt from `missing_docs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MessageOptions, MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct GrpcFacts {
    services: BTreeMap<String, Vec<Method>>,
    enums: BTreeMap<String, BTreeMap<String, i32>>,
    messages: BTreeMap<String, Vec<Field>>,
}

#[derive(Deserialize)]
struct Method {
    name: String,
    #[serde(rename = "in")]
    input: String,
    out: String,
    #[serde(default)]
    server_stream: bool,
    #[serde(default)]
    client_stream: bool,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    n: i32,
    #[serde(rename = "type")]
    ty: String,
    #[serde(default)]
    repeated: bool,
    oneof: Option<String>,
}

/// The services of etcd that the engine calls.
const ETCD_SERVICES: &[&str] =
    &["etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease", "etcdserverpb.Maintenance"];

/// Generates the committed files of `ironkeel-cri`, `ironkeel-encryption` and `ironkeel-etcd`.
pub(crate) fn generate(facts: &Path) -> Result<Vec<(String, String)>> {
    let cri = read(facts, "cri")?;
    let mut files = Vec::new();
    let builder = tonic_prost_build::configure();
    for (_, code) in compile(&cri, &["runtime.v1"], builder)? {
        files.push(("crates/cri/src/generated/v1.rs".into(), header("CRI v1.") + &code));
    }
    // Both sides: tests play the plugin.
    let kms = read(facts, "kms")?;
    for (_, code) in compile(&kms, &["v2"], tonic_prost_build::configure())? {
        files.push(("crates/encryption/src/generated/v2.rs".into(), header("KMS v2.") + &code));
    }
    let mut etcd = read(facts, "etcd")?;
    etcd.services.retain(|name, _| ETCD_SERVICES.contains(&name.as_str()));
    prune(&mut etcd);
    // Keys and values are slices of what came over the wire.
    let builder = tonic_prost_build::configure().build_server(false).bytes(".");
    for (package, code) in compile(&etcd, &["mvccpb", "etcdserverpb"], builder)? {
        let title = format!("etcd v3: package `{package}`, as far as the engine speaks it.");
        files.push((format!("crates/etcd/src/generated/{package}.rs"), header(&title) + &code));
    }
    Ok(files)
}

fn header(title: &str) -> String {
    format!("//! {title}\n//!\n//! Written by `cargo xtask codegen` from the API's facts; do not edit.\n\n")
}

fn read(facts: &Path, name: &str) -> Result<GrpcFacts> {
    let path = format!("grpc/{name}.json");
    let text = std::fs::read_to_string(facts.join(&path)).with_context(|| format!("reading {path} of the facts"))?;
    Ok(serde_json::from_str(&text)?)
}

/// Generates a file a package; later packages may name messages of earlier ones.
fn compile(facts: &GrpcFacts, packages: &[&str], builder: tonic_prost_build::Builder) -> Result<Vec<(String, String)>> {
    let mut set = FileDescriptorSet::default();
    for (at, package) in packages.iter().enumerate() {
        set.file.push(file(facts, package, &packages[..at])?);
    }
    let unique = format!("ironkeel-codegen-{}-{}", std::process::id(), packages.join("-"));
    let dir = std::env::temp_dir().join(unique);
    std::fs::create_dir_all(&dir)?;
    let code = builder.out_dir(&dir).compile_fds(set).and_then(|()| {
        let read = |package: &&str| {
            let code = std::fs::read_to_string(dir.join(format!("{package}.rs")))?;
            Ok(((*package).to_owned(), code))
        };
        packages.iter().map(read).collect()
    });
    std::fs::remove_dir_all(&dir)?;
    Ok(code?)
}

/// Drops the messages and enumerations that no service reaches.
fn prune(facts: &mut GrpcFacts) {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<String> =
        facts.services.values().flatten().flat_map(|m| [m.input.clone(), m.out.clone()]).collect();
    while let Some(name) = waiting.pop() {
        if reached.insert(name.clone()) {
            waiting.extend(facts.messages.get(&name).into_iter().flatten().map(|f| f.ty.clone()));
        }
    }
    facts.messages.retain(|name, _| reached.contains(name));
    facts.enums.retain(|name, _| reached.contains(name));
}

fn file(facts: &GrpcFacts, package: &str, dependencies: &[&str]) -> Result<FileDescriptorProto> {
    let mut messages = Vec::new();
    for (name, fields) in &facts.messages {
        let Some(short) = short(package, name) else { continue };
        let mut message = message(facts, name, short, fields)?;
        let prefix = format!("{name}.");
        for (nested, values) in &facts.enums {
            if let Some(short) = nested.strip_prefix(&prefix) {
                message.enum_type.push(enumeration(short, values));
            }
        }
        messages.push(message);
    }
    let mut enums = Vec::new();
    for (name, values) in &facts.enums {
        if let Some(short) = short(package, name).filter(|short| !short.contains('.')) {
            enums.push(enumeration(short, values));
        }
    }
    let mut services = Vec::new();
    for (name, methods) in &facts.services {
        let Some(short) = short(package, name) else { continue };
        let method = methods.iter().map(|m| MethodDescriptorProto {
            name: Some(m.name.clone()),
            input_type: Some(format!(".{}", m.input)),
            output_type: Some(format!(".{}", m.out)),
            server_streaming: Some(m.server_stream),
            client_streaming: Some(m.client_stream),
            ..Default::default()
        });
        services.push(ServiceDescriptorProto {
            name: Some(short.into()),
            method: method.collect(),
            ..Default::default()
        });
    }
    Ok(FileDescriptorProto {
        name: Some(format!("{package}.proto")),
        package: Some(package.into()),
        syntax: Some("proto3".into()),
        dependency: dependencies.iter().map(|d| format!("{d}.proto")).collect(),
        message_type: messages,
        enum_type: enums,
        service: services,
        ..Default::default()
    })
}

/// The name within the package, if it is of that package.
fn short<'n>(package: &str, name: &'n str) -> Option<&'n str> {
    name.strip_prefix(package).and_then(|n| n.strip_prefix('.'))
}

fn message(facts: &GrpcFacts, name: &str, short: &str, fields: &[Field]) -> Result<DescriptorProto> {
    let mut out = DescriptorProto { name: Some(short.into()), ..Default::default() };
    for field in fields {
        if let Some(inner) = field.ty.strip_prefix("map<").and_then(|t| t.strip_suffix('>')) {
            let (key, value) = inner.split_once(',').context("a map without a comma")?;
            let entry = format!("{}Entry", camel(&field.name));
            out.nested_type.push(DescriptorProto {
                name: Some(entry.clone()),
                field: vec![plain(facts, "key", 1, key, false)?, plain(facts, "value", 2, value, false)?],
                options: Some(MessageOptions { map_entry: Some(true), ..Default::default() }),
                ..Default::default()
            });
            out.field.push(FieldDescriptorProto {
                name: Some(field.name.clone()),
                number: Some(field.n),
                label: Some(Label::Repeated.into()),
                r#type: Some(Type::Message.into()),
                type_name: Some(format!(".{name}.{entry}")),
                ..Default::default()
            });
        } else {
            let mut plain = plain(facts, &field.name, field.n, &field.ty, field.repeated)?;
            plain.oneof_index = field.oneof.as_deref().map(|name| oneof(&mut out, name));
            out.field.push(plain);
        }
    }
    Ok(out)
}

/// The number of a message's `oneof`, declared when it is new.
fn oneof(message: &mut DescriptorProto, name: &str) -> i32 {
    let known = message.oneof_decl.iter().position(|o| o.name() == name);
    let at = known.unwrap_or_else(|| {
        message.oneof_decl.push(OneofDescriptorProto { name: Some(name.into()), ..Default::default() });
        message.oneof_decl.len() - 1
    });
    at as i32
}

fn plain(facts: &GrpcFacts, name: &str, number: i32, ty: &str, repeated: bool) -> Result<FieldDescriptorProto> {
    let (kind, type_name) = match ty {
        "string" => (Type::String, None),
        "bytes" => (Type::Bytes, None),
        "bool" => (Type::Bool, None),
        "double" => (Type::Double, None),
        "int32" => (Type::Int32, None),
        "int64" => (Type::Int64, None),
        "uint32" => (Type::Uint32, None),
        "uint64" => (Type::Uint64, None),
        other if facts.messages.contains_key(other) => (Type::Message, Some(format!(".{other}"))),
        other if facts.enums.contains_key(other) => (Type::Enum, Some(format!(".{other}"))),
        other => bail!("field {name}: unknown type {other}"),
    };
    Ok(FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(if repeated { Label::Repeated } else { Label::Optional }.into()),
        r#type: Some(kind.into()),
        type_name,
        ..Default::default()
    })
}

fn enumeration(name: &str, values: &BTreeMap<String, i32>) -> EnumDescriptorProto {
    // proto3 wants the zero value first.
    let mut values: Vec<_> = values.iter().collect();
    values.sort_by_key(|(_, number)| **number);
    EnumDescriptorProto {
        name: Some(name.into()),
        value: values
            .into_iter()
            .map(|(name, number)| EnumValueDescriptorProto {
                name: Some(name.clone()),
                number: Some(*number),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn camel(name: &str) -> String {
    name.split('_')
        .map(|part| {
            let mut chars = part.chars();
            chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
        })
        .collect()
}
