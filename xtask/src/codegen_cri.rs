//! The CRI's Rust code: facts/grpc/cri.json → a file descriptor set → prost and tonic's generators.
//!
//! No protoc takes part: the descriptor is built here. The facts carry no comments, so the generated
//! file is exempt from `missing_docs`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MessageOptions, MethodDescriptorProto, ServiceDescriptorProto,
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
}

const PACKAGE: &str = "runtime.v1";

/// Generates the committed file of `ironkeel-cri`.
pub(crate) fn generate(facts: &Path) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(facts.join("grpc/cri.json")).context("reading grpc/cri.json of the facts")?;
    let facts: GrpcFacts = serde_json::from_str(&text)?;
    let set = FileDescriptorSet { file: vec![file(&facts)?] };
    let dir = std::env::temp_dir().join(format!("ironkeel-codegen-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let built = tonic_prost_build::configure().out_dir(&dir).compile_fds(set);
    let code = built.and_then(|()| std::fs::read_to_string(dir.join(format!("{PACKAGE}.rs"))));
    std::fs::remove_dir_all(&dir)?;
    let header = "//! CRI v1.\n//!\n//! Written by `cargo xtask codegen` from the API's facts; do not edit.\n\n";
    Ok(vec![("crates/cri/src/generated/v1.rs".into(), format!("{header}{}", code?))])
}

fn file(facts: &GrpcFacts) -> Result<FileDescriptorProto> {
    let mut messages = Vec::new();
    for (name, fields) in &facts.messages {
        let mut message = message(facts, name, fields)?;
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
        let short = short(name)?;
        if !short.contains('.') {
            enums.push(enumeration(short, values));
        }
    }
    let mut services = Vec::new();
    for (name, methods) in &facts.services {
        let method = methods.iter().map(|m| MethodDescriptorProto {
            name: Some(m.name.clone()),
            input_type: Some(format!(".{}", m.input)),
            output_type: Some(format!(".{}", m.out)),
            server_streaming: Some(m.server_stream),
            client_streaming: Some(m.client_stream),
            ..Default::default()
        });
        services.push(ServiceDescriptorProto {
            name: Some(short(name)?.into()),
            method: method.collect(),
            ..Default::default()
        });
    }
    Ok(FileDescriptorProto {
        name: Some("cri.proto".into()),
        package: Some(PACKAGE.into()),
        syntax: Some("proto3".into()),
        message_type: messages,
        enum_type: enums,
        service: services,
        ..Default::default()
    })
}

fn short(name: &str) -> Result<&str> {
    name.strip_prefix(PACKAGE).and_then(|n| n.strip_prefix('.')).with_context(|| format!("{name} is not in {PACKAGE}"))
}

fn message(facts: &GrpcFacts, name: &str, fields: &[Field]) -> Result<DescriptorProto> {
    let mut out = DescriptorProto { name: Some(short(name)?.into()), ..Default::default() };
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
            out.field.push(plain(facts, &field.name, field.n, &field.ty, field.repeated)?);
        }
    }
    Ok(out)
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
