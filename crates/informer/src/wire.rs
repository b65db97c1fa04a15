//! Reads the lines of a watch.
//!
//! kube's own reader decides by the order of a line's members how an object is read: straight from the text, or from a
//! tree that was kept until the type of the event was known. The compiler makes both for every type that is watched,
//! and the second is never used, since API servers write the type first. Here a line with the object first is read, too,
//! but by way of its text.

use std::fmt;
use std::marker::PhantomData;

use futures::stream::BoxStream;
use futures::{AsyncBufReadExt as _, StreamExt as _};
use kube::Client;
use kube::api::WatchEvent;
use kube::core::Status;
use kube::core::request::Error as RequestError;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

type Request = http::Request<Vec<u8>>;

/// The events of a watch.
pub(crate) type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// Asks for a watch and reads its events.
pub(crate) async fn watch<K>(client: &Client, request: Result<Request, RequestError>) -> kube::Result<Events<K>>
where
    K: DeserializeOwned + Send + 'static,
{
    let lines = lines(client, request.map_err(kube::Error::BuildRequest)?).await?;
    Ok(lines.filter_map(|line| std::future::ready(line.and_then(|line| event(&line)).transpose())).boxed())
}

type Lines = BoxStream<'static, kube::Result<String>>;

async fn lines(client: &Client, mut request: Request) -> kube::Result<Lines> {
    // What is compressed arrives when a block is full; an event is wanted when it happens.
    let identity = http::HeaderValue::from_static("identity");
    request.headers_mut().insert(http::header::ACCEPT_ENCODING, identity);
    let body = client.request_stream(request).await?;
    Ok(Box::pin(body).lines().map(|line| line.map_err(kube::Error::ReadEvents)).boxed())
}

/// One line; `None` where a broken connection cut it off.
fn event<K: DeserializeOwned>(line: &str) -> kube::Result<Option<WatchEvent<K>>> {
    serde_json::from_str(line).map(|Line(event)| Some(event)).or_else(|error| unread(line, error))
}

fn unread<T>(line: &str, error: serde_json::Error) -> kube::Result<Option<T>> {
    if error.is_eof() {
        return Ok(None);
    }
    // A server that fails midway may say so without an event around it.
    match serde_json::from_str::<Status>(line) {
        Ok(status) if status.is_failure() => Err(kube::Error::Api(status.boxed())),
        _ => Err(kube::Error::SerdeError(error)),
    }
}

struct Line<K>(WatchEvent<K>);

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Type {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Member {
    Type,
    Object,
    #[serde(other)]
    Other,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Line<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LineVisitor(PhantomData)).map(Line)
    }
}

struct LineVisitor<K>(PhantomData<K>);

impl<'de, K: DeserializeOwned> Visitor<'de> for LineVisitor<K> {
    type Value = WatchEvent<K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event of a watch")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<WatchEvent<K>, M::Error> {
        let (mut kind, mut early, mut event) = (None, None::<Value>, None);
        while let Some(member) = members.next_key()? {
            match (member, kind) {
                (Member::Type, _) => kind = Some(members.next_value()?),
                (Member::Object, None) => early = Some(members.next_value()?),
                (Member::Object, Some(kind)) => {
                    event = Some(match kind {
                        Type::Added | Type::Modified | Type::Deleted => of_object(kind, members.next_value()?),
                        Type::Bookmark => WatchEvent::Bookmark(members.next_value()?),
                        Type::Error => WatchEvent::Error(members.next_value()?),
                    });
                }
                (Member::Other, _) => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        match (event, kind, early) {
            (Some(event), ..) => Ok(event),
            (None, Some(kind), Some(object)) => of_text(kind, &object.to_string()).map_err(M::Error::custom),
            (None, None, _) => Err(M::Error::missing_field("type")),
            (None, ..) => Err(M::Error::missing_field("object")),
        }
    }
}

fn of_object<K>(kind: Type, object: K) -> WatchEvent<K> {
    match kind {
        Type::Added => WatchEvent::Added(object),
        Type::Deleted => WatchEvent::Deleted(object),
        _ => WatchEvent::Modified(object),
    }
}

fn of_text<K: DeserializeOwned>(kind: Type, text: &str) -> serde_json::Result<WatchEvent<K>> {
    Ok(match kind {
        Type::Bookmark => WatchEvent::Bookmark(serde_json::from_str(text)?),
        Type::Error => WatchEvent::Error(serde_json::from_str(text)?),
        kind => of_object(kind, serde_json::from_str(text)?),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn read(line: &str) -> kube::Result<Option<WatchEvent<ConfigMap>>> {
        event(line)
    }

    #[test]
    fn an_event_is_read_whatever_comes_first() {
        for line in [
            r#"{"type":"MODIFIED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}},"more":[1]}"#,
            r#"{"object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}},"type":"MODIFIED"}"#,
        ] {
            let Some(WatchEvent::Modified(map)) = read(line).unwrap() else { panic!("{line}") };
            assert_eq!(map.metadata.name.as_deref(), Some("a"));
        }
    }

    #[test]
    fn bookmarks_and_errors_are_no_objects() {
        let line =
            r#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"7"}}}"#;
        let Some(WatchEvent::Bookmark(bookmark)) = read(line).unwrap() else { panic!("{line}") };
        assert_eq!(bookmark.metadata.resource_version, "7");
        let line = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","code":410}}"#;
        let Some(WatchEvent::Error(status)) = read(line).unwrap() else { panic!("{line}") };
        assert_eq!(status.code, 410);
    }

    #[test]
    fn a_cut_line_is_nothing_and_a_failure_without_an_event_is_an_error() {
        assert!(read(r#"{"type":"ADDED","object":{"kind":"Conf"#).unwrap().is_none());
        let line = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":504}"#;
        assert!(matches!(read(line), Err(kube::Error::Api(status)) if status.code == 504));
        let line = r#"{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{},"data":7}}"#;
        assert!(matches!(read(line), Err(kube::Error::SerdeError(_))));
    }
}
