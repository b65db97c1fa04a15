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
    /// Aggregated discovery of this version, where the client takes it.
    pub(crate) aggregated: Option<&'static str>,
}

impl Output {
    /// Compact JSON.
    pub(crate) const JSON: Output =
        Output { format: Format::Json, shape: Shape::Objects, pretty: false, aggregated: None };

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
        for clause in accept.split(',') {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let (mut kind, mut group, mut version) = ("", "", "");
            for p in parts {
                match p.split_once('=') {
                    Some(("as", v)) => kind = v,
                    Some(("g", v)) => group = v,
                    Some(("v", v)) => version = v,
                    _ => {}
                }
            }
            let format = match media {
                "*/*" | "application/*" | "application/json" => Format::Json,
                other => match Format::from_media_type(other) {
                    Some(format) => format,
                    None => continue,
                },
            };
            let beta = version == "v1beta1";
            let shape = match (kind, group) {
                ("", _) => Shape::Objects,
                ("Table", "meta.k8s.io") if matches!(version, "v1" | "v1beta1") => Shape::Table(beta),
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io")
                    if matches!(version, "v1" | "v1beta1") =>
                {
                    Shape::Metadata(beta)
                }
                ("APIGroupDiscoveryList", "apidiscovery.k8s.io") => {
                    out.aggregated = match version {
                        "v2" => Some("v2"),
                        "v2beta1" => Some("v2beta1"),
                        _ => continue,
                    };
                    Shape::Objects
                }
                _ => continue,
            };
            out.format = format;
            out.shape = shape;
            if format == Format::Protobuf {
                out.pretty = false;
            }
            return Ok(out);
        }
        Err(ApiError::new(
            Reason::NotAcceptable,
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ))
    }
}

/// The format of a request's body; JSON where none is named.
pub(crate) fn body_format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Format::Json) };
    let text = value.to_str().unwrap_or_default();
    match text {
        "" | "application/json" => Ok(Format::Json),
        other => Format::from_media_type(other).ok_or_else(|| {
            unsupported(&["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"])
        }),
    }
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
