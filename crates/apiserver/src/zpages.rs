//! `/statusz` and `/flagz` (KEP-4827, KEP-4828): what the process is and how it was started, for people as text, for
//! programs as `config.k8s.io` objects.

use http::Response;
use http::header::{HeaderValue, WARNING};
use ironkeel_codec::Format;
use ironkeel_object::{Map, Value};
use ironkeel_registry::{ApiError, Reason};
use jiff::Timestamp;

use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::negotiate::Output;

/// The component, as these pages call it.
const NAME: &str = "apiserver";
/// What is listed; discovery and documents are not.
const PATHS: &[&str] = &["/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"];
const CAUTION: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
                       guarantees and is for debugging purposes only.";

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Status,
    Flags,
}

/// What the client takes of what there is.
enum Form {
    Text,
    Object { format: Format, version: &'static str },
}

/// Reads `Accept` as far as these pages go.
fn form(accept: &str, kind: &str) -> Option<Form> {
    if accept.trim().is_empty() {
        return Some(Form::Text);
    }
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let format = match parts.next().unwrap_or_default() {
            "text/plain" | "text/*" | "*/*" => return Some(Form::Text),
            "application/json" => Format::Json,
            "application/yaml" => Format::Yaml,
            _ => continue,
        };
        let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
        let of = |key: &str| parameters.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| *v);
        if (of("g"), of("as")) != ("config.k8s.io", kind) {
            continue;
        }
        match of("v") {
            "v1beta1" => return Some(Form::Object { format, version: "v1beta1" }),
            "v1alpha1" => return Some(Form::Object { format, version: "v1alpha1" }),
            _ => {}
        }
    }
    None
}

/// Answers one of the pages.
pub(crate) fn respond(c: &Context, page: Page) -> Result<Response<Body>, ApiError> {
    let kind = if page == Page::Status { "Statusz" } else { "Flagz" };
    let accept = c.parts.headers.get(http::header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let Some(form) = form(accept, kind) else {
        let supported = "application/json, application/yaml, text/plain";
        let why = format!("only the following media types are accepted: {supported}");
        return Err(ApiError::new(Reason::NotAcceptable, why));
    };
    let (format, version) = match form {
        Form::Text => {
            let text = if page == Page::Status { status_text(c) } else { flags_text(c) };
            return Ok(answer::with_type(200, "text/plain; charset=utf-8", text));
        }
        Form::Object { format, version } => (format, version),
    };
    let mut object = Map::new();
    object.insert("kind", kind);
    object.insert("apiVersion", format!("config.k8s.io/{version}"));
    let mut meta = Map::new();
    meta.insert("name", NAME);
    object.insert("metadata", meta);
    match page {
        Page::Status => {
            let about = About::of(c);
            object.insert("startTime", ironkeel_registry::rfc3339(about.started));
            object.insert("uptimeSeconds", about.up);
            object.insert("goVersion", about.built_with);
            object.insert("binaryVersion", about.binary);
            object.insert("emulationVersion", about.emulation);
            object.insert("paths", PATHS.to_vec());
        }
        Page::Flags => {
            let flags = c.server.flags.iter().map(|(k, v)| (k.clone(), v.as_str()));
            object.insert("flags", flags.collect::<Map>());
        }
    }
    let output = Output { format, pretty: true, ..Output::JSON };
    let (bytes, media_type) = answer::encode(&Value::Object(object), &output);
    let mut response = answer::with_type(200, media_type, bytes);
    let said = format!("{media_type};g=config.k8s.io;v={version};as={kind}");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_str(&said).map_err(ApiError::internal)?);
    if version == "v1alpha1" {
        let page = kind.to_lowercase();
        let why = format!("299 - \"This version of the {page} endpoint is deprecated. Please use a newer version.\"");
        response.headers_mut().append(WARNING, HeaderValue::from_str(&why).map_err(ApiError::internal)?);
    }
    Ok(response)
}

struct About {
    started: Timestamp,
    up: i64,
    built_with: String,
    binary: String,
    emulation: String,
}

impl About {
    fn of(c: &Context) -> Self {
        let version = ironkeel_openapi::version("", "");
        let said = |key: &str| version[key].as_str().unwrap_or_default().to_owned();
        let started = c.server.started;
        let plain = said("gitVersion").trim_start_matches('v').split(['+', '-']).next().unwrap_or_default().to_owned();
        let minor: String = said("minor").chars().take_while(char::is_ascii_digit).collect();
        About {
            started,
            up: (c.server.registry.clock().now().as_second() - started.as_second()).max(0),
            built_with: said("goVersion"),
            binary: plain,
            emulation: format!("{}.{minor}", said("major")),
        }
    }
}

fn status_text(c: &Context) -> String {
    let about = About::of(c);
    let (hours, minutes, seconds) = (about.up / 3600, about.up / 60 % 60, about.up % 60);
    let started = about.started.strftime("%a %b %e %H:%M:%S UTC %Y");
    format!(
        "\n{NAME} statusz\n{CAUTION}\n\nStarted: {started}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\n\
         Go version: {}\nBinary version: {}\nEmulation version: {}\nPaths: {}\n",
        about.built_with,
        about.binary,
        about.emulation,
        PATHS.join(" ")
    )
}

fn flags_text(c: &Context) -> String {
    let mut out = format!("\n{NAME} flagz\n{CAUTION}\n");
    for (name, value) in &c.server.flags {
        out.push_str(&format!("{name}={value}\n"));
    }
    out
}
