//! Paths that are no resources: discovery, OpenAPI, version, health, metrics, keys for OIDC.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, VARY};
use ironkeel_codec::Format;
use ironkeel_fairness::DumpKind;
use ironkeel_openapi as openapi;
use ironkeel_registry::{ApiError, Registry, Row};
use ironkeel_schema::Resource;
use parking_lot::Mutex;

use crate::body::Body;
use crate::context::Context;
use crate::{answer, compress, routes, zpages};

/// Documents that are made on first demand and kept as bytes, by path.
#[derive(Default)]
pub(crate) struct Documents {
    kept: Mutex<HashMap<String, (Generation, Document)>>,
    /// Of the OpenAPI v3 documents of built-in group versions, which never change.
    hashes: Mutex<HashMap<(String, String), String>>,
    /// What is served, and as of which change.
    served: Mutex<Option<(u64, Arc<Served>)>>,
}

/// Larger documents are kept compressed: OpenAPI's are megabytes of sentences, and are seldom asked for.
const COMPRESS_FROM_BYTES: usize = 64 << 10;

/// What clients may do with what they find under its hash.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, immutable, max-age=31536000");

/// A document as it is kept.
#[derive(Clone)]
struct Document {
    bytes: Bytes,
    zipped: bool,
    hash: Arc<str>,
}

impl Document {
    fn new(bytes: Vec<u8>) -> io::Result<Self> {
        let hash = openapi::content_hash(&bytes).into();
        if bytes.len() < COMPRESS_FROM_BYTES {
            return Ok(Document { bytes: bytes.into(), zipped: false, hash });
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&bytes)?;
        Ok(Document { bytes: encoder.finish()?.into(), zipped: true, hash })
    }

    fn plain(&self) -> io::Result<Bytes> {
        if !self.zipped {
            return Ok(self.bytes.clone());
        }
        let mut out = Vec::new();
        GzDecoder::new(&self.bytes[..]).read_to_end(&mut out)?;
        Ok(out.into())
    }
}

/// Changes of the registry's rows and of remote groups.
type Generation = (u64, u64);

/// Group and version of the stored form.
type StoredVersion = Option<(String, String)>;

/// Every served resource, with the schemas of custom ones.
pub(crate) struct Served(Vec<(Arc<Resource>, Option<serde_json::Value>, StoredVersion)>);

impl Served {
    fn of(registry: &Registry) -> Self {
        let schema = |row: &Row| {
            let custom = row.kind.custom.as_ref()?;
            let mut text = Vec::new();
            ironkeel_codec::encode_json(&custom.openapi, &mut text);
            let mut schema: serde_json::Value = serde_json::from_slice(&text).ok()?;
            let fields = row.kind.hooks.selectable().unwrap_or_default();
            if let Some(root) = schema.as_object_mut().filter(|_| !fields.is_empty()) {
                let fields = fields.into_iter().map(|path| serde_json::json!({ "fieldPath": path })).collect();
                root.insert("x-kubernetes-selectable-fields".to_owned(), fields);
            }
            Some(schema)
        };
        let stored = |row: &Row| {
            let home = row.stored.as_ref()?;
            let (group, version) = home.api_version.rsplit_once('/').unwrap_or(("", &home.api_version));
            Some((group.to_owned(), version.to_owned()))
        };
        let mut all: Vec<_> = registry.rows().iter().map(|r| (r.kind.resource.clone(), schema(r), stored(r))).collect();
        let custom = all.partition_point(|(_, schema, _)| schema.is_none());
        all[custom..].sort_by_cached_key(|(r, ..)| (r.group, openapi::version_rank(r.version), r.plural));
        Served(all)
    }

    fn rows(&self) -> Vec<openapi::Row<'_>> {
        fn stored(s: &StoredVersion) -> Option<(&str, &str)> {
            s.as_ref().map(|(group, version)| (group.as_str(), version.as_str()))
        }
        self.0
            .iter()
            .map(|(resource, schema, s)| openapi::Row { resource, schema: schema.as_ref(), stored: stored(s) })
            .collect()
    }
}

impl Documents {
    fn served(&self, registry: &Registry) -> Arc<Served> {
        let generation = registry.generation();
        let mut served = self.served.lock();
        match &*served {
            Some((of, there)) if *of == generation => there.clone(),
            _ => {
                let new = Arc::new(Served::of(registry));
                *served = Some((generation, new.clone()));
                new
            }
        }
    }
}

/// The media type of gnostic's documents.
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers a path.
pub(crate) async fn respond(c: &Context) -> Result<Response<Body>, ApiError> {
    let path = c.info.path.trim_end_matches('/');
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    routed(c, &parts)?;
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => crate::health::respond(c, &parts).await,
        ["statusz"] => zpages::respond(c, zpages::Page::Status),
        ["flagz"] => zpages::respond(c, zpages::Page::Flags),
        ["metrics"] => Ok(metrics(c, false).await),
        ["metrics", "slis"] => Ok(metrics(c, true).await),
        ["debug", "api_priority_and_fairness", table] => flow_table(c, table),
        ["openapi", "v2"] => openapi_v2(c),
        ["openapi", "v3", ..] => openapi_v3(c, &parts[2..]),
        [".well-known", "openid-configuration"] => {
            let uri = format!("https://{}/openid/v1/jwks", c.server.server_address);
            json(c, "application/json", &c.server.issuer.discovery(&uri)).map(cacheable)
        }
        ["openid", "v1", "jwks"] => json(c, "application/jwk-set+json", &c.server.issuer.jwks()).map(cacheable),
        ["" | "version"] | ["api", ..] => discovery(c, path, &parts),
        ["apis"] => discovery(c, path, &parts),
        ["apis", group, ..] => {
            let served = |r: &Arc<Row>| r.group() == *group;
            let known = c.server.registry.rows().iter().any(served) || c.server.aggregator.group(group, None).is_some();
            if known { discovery(c, path, &parts) } else { Ok(routes::page_not_found()) }
        }
        _ => Ok(routes::page_not_found()),
    }
}

/// Methods and media types of the documents that upstream's router serves. The others, plain handlers,
/// answer any method.
fn routed(c: &Context, parts: &[&str]) -> Result<(), ApiError> {
    let produced: &[&str] = match parts {
        ["api"] | ["api", "v1"] => routes::OBJECTS,
        ["apis", group, version]
            if c.server.registry.rows().iter().any(|r| r.group() == *group && r.kind.resource.version == *version) =>
        {
            routes::OBJECTS
        }
        ["version"] | [".well-known", "openid-configuration"] => &["application/json"],
        ["openid", "v1", "jwks"] => &["application/jwk-set+json"],
        _ => {
            return c
                .unacceptable
                .clone()
                .filter(|_| matches!(parts, ["apis"] | ["apis", _] | [""]))
                .map_or(Ok(()), Err);
        }
    };
    if c.parts.method != http::Method::GET {
        return Err(routes::wrong_method());
    }
    if parts.len() < 3 && c.output.aggregated {
        return Ok(());
    }
    routes::acceptable(&c.parts.headers, produced)?;
    c.unacceptable.clone().filter(|_| parts[0] == "api" || parts[0] == "apis").map_or(Ok(()), Err)
}

async fn metrics(c: &Context, slis: bool) -> Response<Body> {
    let accept = c.parts.headers.get(http::header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let form = ironkeel_metrics::Form::accepted(accept);
    let mut text = ironkeel_metrics::Text::new(form);
    if slis {
        c.server.metrics.render_slis(&mut text);
    } else {
        c.server.metrics.render(&c.server, &mut text).await;
    }
    answer::with_type(200, form.media_type(), text.finish())
}

/// `/debug/api_priority_and_fairness/dump_*`.
fn flow_table(c: &Context, table: &str) -> Result<Response<Body>, ApiError> {
    let details = c.query.get("includeRequestDetails").is_some_and(|v| !v.is_empty());
    let kind = match table {
        "dump_priority_levels" => DumpKind::PriorityLevels,
        "dump_queues" => DumpKind::Queues,
        "dump_requests" => DumpKind::Requests { details },
        _ => return Ok(routes::page_not_found()),
    };
    Ok(answer::with_type(200, "text/plain; charset=utf-8", c.server.fairness.dump(kind)))
}

/// Whoever verifies tokens may keep what they are verified with for a while.
fn cacheable(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

fn json(c: &Context, content_type: &'static str, value: &serde_json::Value) -> Result<Response<Body>, ApiError> {
    let bytes = if c.output.pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
    Ok(answer::with_type(200, content_type, bytes.map_err(ApiError::internal)?))
}

/// To be read before what a document is made of: then a document is never older than it says.
fn generation(c: &Context) -> Generation {
    (c.server.registry.generation(), c.server.aggregator.generation())
}

fn kept(
    c: &Context,
    generation: Generation,
    key: String,
    make: impl FnOnce() -> Option<serde_json::Value>,
) -> Result<Document, ApiError> {
    kept_as(c, generation, key, || make().and_then(|value| serde_json::to_vec(&value).ok()))
}

fn kept_as(
    c: &Context,
    generation: Generation,
    key: String,
    make: impl FnOnce() -> Option<Vec<u8>>,
) -> Result<Document, ApiError> {
    if let Some((_, document)) = c.server.documents.kept.lock().get(&key).filter(|(of, _)| *of == generation) {
        return Ok(document.clone());
    }
    let document = Document::new(make().ok_or_else(ApiError::no_such_resource)?).map_err(ApiError::internal)?;
    let mut kept = c.server.documents.kept.lock();
    // Documents of before the change are of no use to anybody.
    kept.retain(|_, (of, _)| *of == generation);
    kept.insert(key, (generation, document.clone()));
    drop(kept);
    Ok(document)
}

fn tagged(c: &Context, content_type: &'static str, document: &Document) -> Result<Response<Body>, ApiError> {
    let tag = format!("\"{}\"", document.hash);
    let same = c.parts.headers.get(IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let mut response = if same {
        answer::with_type(304, content_type, Bytes::new())
    } else if document.zipped && compress::accepts(&c.parts.headers) {
        let mut response = answer::with_type(200, content_type, document.bytes.clone());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
        response
    } else {
        answer::with_type(200, content_type, document.plain().map_err(ApiError::internal)?)
    };
    if let Ok(v) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, v);
    }
    Ok(response)
}

fn discovery(c: &Context, path: &str, parts: &[&str]) -> Result<Response<Body>, ApiError> {
    let generation = generation(c);
    let served = c.server.documents.served(&c.server.registry);
    let rows = &served.rows()[..];
    if let (["api"] | ["apis"], true) = (parts, c.output.aggregated) {
        let core = parts == ["api"];
        let document = kept(c, generation, format!("{path} aggregated"), || {
            let mut document = openapi::aggregated(rows, core);
            if !core {
                c.server.aggregator.merge_aggregated(&mut document);
            }
            Some(document)
        })?;
        let mut response = tagged(c, openapi::AGGREGATED_V2, &document)?;
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
        return Ok(response);
    }
    let document = kept(c, generation, path.to_owned(), || match parts {
        [""] => Some(openapi::root_paths(rows)),
        ["api"] => Some(openapi::api_versions(&c.server.server_address)),
        ["apis"] => {
            let mut list = openapi::api_group_list(rows);
            c.server.aggregator.merge_groups(&mut list);
            Some(list)
        }
        ["api", version] => openapi::api_resource_list(rows, "", version),
        ["apis", group] => c.server.aggregator.group(group, openapi::api_group(rows, group)).map(|mut body| {
            body["kind"] = "APIGroup".into();
            body["apiVersion"] = "v1".into();
            body
        }),
        ["apis", group, version] => openapi::api_resource_list(rows, group, version),
        ["version"] => Some(openapi::version("", "")),
        _ => None,
    })?;
    let bytes = document.plain().map_err(ApiError::internal)?;
    if c.output.format == Format::Json && !c.output.pretty {
        return Ok(answer::with_type(200, "application/json", bytes));
    }
    let (value, _) = ironkeel_codec::decode_json(&bytes, None).map_err(ApiError::internal)?;
    Ok(answer::value(200, &value, &c.output))
}

/// Whether the client takes OpenAPI v2 as protobuf, under its old name or its new one, before JSON.
fn wants_gnostic(c: &Context) -> bool {
    let accept = c.parts.headers.get(http::header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let first = accept.split(',').next().unwrap_or_default();
    first.split(';').next().unwrap_or_default().trim().starts_with("application/com.github.proto-openapi.spec.v2")
}

fn openapi_v2(c: &Context) -> Result<Response<Body>, ApiError> {
    let generation = generation(c);
    let served = c.server.documents.served(&c.server.registry);
    let document = || {
        let mut document = openapi::openapi_v2(&served.rows());
        c.server.aggregator.merge_openapi_v2(&mut document);
        Some(document)
    };
    if wants_gnostic(c) {
        let made = || document().map(|d| openapi::openapi_v2_protobuf(&d));
        return tagged(c, GNOSTIC, &kept_as(c, generation, "/openapi/v2 protobuf".to_owned(), made)?);
    }
    tagged(c, "application/json", &kept(c, generation, "/openapi/v2".to_owned(), document)?)
}

/// The hash of a group version's document.
fn openapi_v3_hash(c: &Context, rows: &[openapi::Row<'_>], group: &str, version: &str) -> Option<String> {
    let custom =
        |r: &openapi::Row<'_>| r.schema.is_some() && r.resource.group == group && r.resource.version == version;
    if rows.iter().any(custom) {
        return openapi::openapi_v3_hash(rows, group, version);
    }
    let key = (group.to_owned(), version.to_owned());
    if let Some(hash) = c.server.documents.hashes.lock().get(&key) {
        return Some(hash.clone());
    }
    let hash = openapi::openapi_v3_hash(rows, group, version)?;
    c.server.documents.hashes.lock().insert(key, hash.clone());
    Some(hash)
}

fn openapi_v3(c: &Context, parts: &[&str]) -> Result<Response<Body>, ApiError> {
    let generation = generation(c);
    let served = c.server.documents.served(&c.server.registry);
    let rows = &served.rows()[..];
    let path = format!("/openapi/v3/{}", parts.join("/"));
    let document = kept(c, generation, path.clone(), || match parts {
        [] => {
            let mut index = openapi::openapi_v3_index(rows, |group, version| openapi_v3_hash(c, rows, group, version));
            c.server.aggregator.merge_openapi_v3_index(&mut index);
            Some(index)
        }
        ["api", version] => openapi::openapi_v3(rows, "", version),
        ["apis", group, version] => openapi::openapi_v3(rows, group, version),
        about => openapi::openapi_v3_about(rows, &about.join("/")),
    })?;
    let Some(hash) = c.query.get("hash").filter(|h| !h.is_empty() && !parts.is_empty()) else {
        return tagged(c, "application/json", &document);
    };
    if *hash != *document.hash {
        // Where the document is by now.
        let mut response = answer::with_type(301, "application/json", Bytes::new());
        let location = HeaderValue::from_str(&format!("{path}?hash={}", document.hash)).map_err(ApiError::internal)?;
        response.headers_mut().insert(LOCATION, location);
        return Ok(response);
    }
    let mut response = tagged(c, "application/json", &document)?;
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    response.headers_mut().insert(CACHE_CONTROL, IMMUTABLE);
    Ok(response)
}
