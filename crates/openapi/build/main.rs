//! Writes down, while this crate is built, what types and fields are for.
//!
//! The sentences are upstream's and come with the Rust types of the API: each can write its JSON schema, and every
//! schema carries its descriptions. The code that does so is larger than all it says, so it runs here, and the binary
//! gets the words alone, compressed. The format is `src/descriptions.rs`' own: a record a definition, ended by
//! [`RECORD`]; its parts, each ended by [`PART`], are the definition's name, its description, then a property's name
//! and description in turn.

mod generated;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

const PART: char = '\u{1f}';
const RECORD: char = '\u{1e}';

/// Adds a type, and what it refers to, to a generator.
type Add = fn(&mut SchemaGenerator);

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// Types that belong to no group's kinds.
const SHARED: &[Add] = &[add::<v1::DeleteOptions>, add::<v1::ListMeta>, add::<v1::ObjectMeta>, add::<v1::Status>];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build");
    let mut generator = SchemaGenerator::default();
    for add in generated::described::KINDS.iter().chain(SHARED) {
        add(&mut generator);
    }
    // Versions of a type stand side by side, where the compressor sees that they say the same.
    let mut records = BTreeMap::new();
    for (name, schema) in generator.take_definitions(false) {
        let short = name.rsplit('.').next().unwrap_or(&name).to_owned();
        let record = record(&name, &schema)?;
        records.insert((short, name), record);
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo says where to write")?);
    let mut file = DeflateEncoder::new(std::fs::File::create(out.join("descriptions"))?, Compression::best());
    for record in records.values() {
        file.write_all(record.as_bytes())?;
    }
    file.finish()?;
    Ok(())
}

fn record(name: &str, schema: &Value) -> Result<String, Box<dyn Error>> {
    let description = |schema: &Value| schema["description"].as_str().unwrap_or_default().to_owned();
    let mut parts = vec![name.to_owned(), description(schema)];
    for (property, schema) in schema["properties"].as_object().into_iter().flatten() {
        let text = description(schema);
        if !text.is_empty() {
            parts.extend([property.clone(), text]);
        }
    }
    let mut record = String::new();
    for part in &parts {
        if part.contains([PART, RECORD]) {
            return Err(format!("{name}: a separator within {part:?}").into());
        }
        record.push_str(part);
        record.push(PART);
    }
    record.push(RECORD);
    Ok(record)
}
