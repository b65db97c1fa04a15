//! Which form an answer takes: `Accept`, `pretty`; and what a body is: `Content-Type`.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use ironkeel_codec::Format;
use ironkeel_registry::{ApiError, Reason};

/// The shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The objects themselves.
    Objects,
    /// `meta.k8s.io/v1.Table`; the flag says v1beta1.
    Table(bool),
    /// `PartialObjectMetadata(List)`; the flag says v1beta1.
    Metadata(bool),
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// Encoding.
    pub(crate) format: Format,
    /// Shape.
    pub(crate) shape: Shape,
    /// Indented JSON.
    pub(crate) pretty: bool,
    /// Metadata of a list were asked for, not of one object.
    pub(crate) metadata_list: bool,
    /// Aggregated discovery of this version, where the client takes it.
    pub(crate) aggregated: bool,
}

impl Output {
    /// Compact JSON.
    pub(crate) const JSON: Output =
        Output { format: Format::Json, shape: Shape::Objects, pretty: false, metadata_list: false, aggregated: false };

    /// Chooses among what the client accepts; 406 when there is nothing to choose.
    pub(crate) fn negotiate(headers: &HeaderMap, pretty: Option<&str>) -> Result<Output, ApiError> {
        let mut out = Self::JSON;
        let browser = headers
            .get(http::header::USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|agent| ["curl", "Wget", "Mozilla/5.0"].iter().any(|b| agent.starts_with(b)));
        out.pretty = match pretty {
            Some(v) => !matches!(v, "false" | "0"),
            None => browser,
        };
        let Some(accept) = headers.get(ACCEPT) else { return Ok(out) };
        let accept = accept.to_str().unwrap_or_default();
        if accept.is_empty() {
            return Ok(out);
        }
        for clause in clauses(accept) {
            let (mut kind, mut group, mut version, mut pretty) = ("", "", "", false);
            let mut refused = false;
            for (name, value) in &clause.parameters {
                match *name {
                    "as" => kind = value,
                    "g" => group = value,
                    "v" => version = value,
                    "pretty" => pretty = *value == "1",
                    "stream" => refused |= !matches!(*value, "" | "watch"),
                    "sv" => refused |= !value.is_empty(),
                    _ => {}
                }
            }
            let format = match clause.media {
                "*/*" | "application/*" | "application/json" => Format::Json,
                other => match Format::from_media_type(other) {
                    Some(format) => format,
                    None => continue,
                },
            };
            if refused {
                continue;
            }
            let beta = version == "v1beta1";
            let known = group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1");
            let shape = match kind {
                "" if group.is_empty() && version.is_empty() => Shape::Objects,
                // Cells have no protobuf form.
                "Table" if known && format != Format::Protobuf => Shape::Table(beta),
                "PartialObjectMetadata" | "PartialObjectMetadataList" if known => Shape::Metadata(beta),
                // Asked for a version that is not there any more, upstream answers in the old form.
                "APIGroupDiscoveryList" if group == "apidiscovery.k8s.io" => {
                    out.aggregated = version == "v2";
                    Shape::Objects
                }
                _ => continue,
            };
            out.format = format;
            out.shape = shape;
            out.metadata_list = kind == "PartialObjectMetadataList";
            out.pretty = (out.pretty || pretty) && format == Format::Json;
            return Ok(out);
        }
        Err(not_acceptable(false))
    }

    /// The next best form for what has no protobuf form: custom resources.
    pub(crate) fn without_protobuf(self, headers: &HeaderMap) -> Result<Output, ApiError> {
        if self.format != Format::Protobuf || self.shape != Shape::Objects {
            return Ok(self);
        }
        let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let others: Vec<&str> =
            accept.split(',').filter(|c| !c.trim().starts_with(Format::Protobuf.media_type())).collect();
        if others.is_empty() {
            return Err(ApiError::new(
                Reason::NotAcceptable,
                "object *unstructured.Unstructured does not implement the protobuf marshalling interface and cannot be \
                 encoded to a protobuf message",
            ));
        }
        let mut rest = HeaderMap::new();
        if let Ok(value) = http::HeaderValue::from_str(&others.join(",")) {
            rest.insert(ACCEPT, value);
        }
        Output::negotiate(&rest, None)
    }
}

/// 406, naming what there is.
pub(crate) fn not_acceptable(watch: bool) -> ApiError {
    let accepted = if watch {
        "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    } else {
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    };
    ApiError::new(Reason::NotAcceptable, format!("only the following media types are accepted: {accepted}"))
}

/// An `Accept` header that asks for JSON in the place of one of these media types, where that is what the
/// client likes best of what there is.
pub(crate) fn instead_of(accept: &str, wanted: &[&str]) -> Option<String> {
    let known = |c: &Clause<'_>| {
        wanted.contains(&c.media)
            || matches!(c.media, "*/*" | "application/*")
            || Format::from_media_type(c.media).is_some()
    };
    let first = clauses(accept).into_iter().find(known).filter(|c| wanted.contains(&c.media))?;
    let mut out = Format::Json.media_type().to_owned();
    for (name, value) in first.parameters.iter().filter(|(name, _)| *name != "stream") {
        out.push_str(&format!(";{name}={value}"));
    }
    Some(out)
}

struct Clause<'h> {
    media: &'h str,
    parameters: Vec<(&'h str, &'h str)>,
    quality: f32,
}

/// The clauses of an `Accept` header, those that the client likes best first.
fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut all: Vec<Clause<'_>> = accept
        .split(',')
        .map(|text| {
            let mut parts = text.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let mut quality = 1.0;
            let mut parameters = Vec::new();
            for part in parts {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                let value = value.trim().trim_matches('"');
                if name.trim() == "q" {
                    quality = value.parse().unwrap_or(1.0);
                } else {
                    parameters.push((name.trim(), value));
                }
            }
            Clause { media, parameters, quality }
        })
        .collect();
    let wildcards = |media: &str| media.matches('*').count();
    all.sort_by(|a, b| b.quality.total_cmp(&a.quality).then_with(|| wildcards(a.media).cmp(&wildcards(b.media))));
    all
}

/// The format of a request's body; JSON where none is named. Custom resources have no protobuf form.
pub(crate) fn body_format(headers: &HeaderMap, custom: bool) -> Result<Format, ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Format::Json) };
    let text = value.to_str().unwrap_or_default();
    let format = if text.is_empty() { Some(Format::Json) } else { Format::from_media_type(text) };
    format.filter(|f| !(custom && *f == Format::Protobuf)).ok_or_else(|| {
        unsupported(if custom {
            &["application/json", "application/yaml"]
        } else {
            &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]
        })
    })
}

/// 415, naming what is understood.
pub(crate) fn unsupported(accepted: &[&str]) -> ApiError {
    ApiError::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        ),
    )
}
