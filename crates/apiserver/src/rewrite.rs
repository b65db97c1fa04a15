//! Leading a proxied page's redirects and links back through the proxy: what upstream's proxy
//! Transport does to `Location` and to `text/html`.

use std::io::{Read, Write};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use ironkeel_registry::ApiError;

use crate::body::Body;

/// Largest page whose links are rewritten, in bytes; larger ones pass as they are.
const PAGE_LIMIT_BYTES: usize = 16 << 20;

/// Which attributes hold URLs, by element.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Rewrite {
    /// The proxy's own path, up to and with `/proxy`.
    pub(crate) prefix: String,
}

/// Joins as Go's `path.Join`: one slash between, `.` and `..` resolved; a trailing slash is kept.
fn join(prefix: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in prefix.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut out = format!("/{}", parts.join("/"));
    if path.ends_with('/') && !out.ends_with('/') {
        out.push('/');
    }
    out
}

impl Rewrite {
    /// `X-Forwarded-Uri` for a path and query of the backend.
    pub(crate) fn forwarded_uri(&self, path: &str) -> String {
        join(&self.prefix, path.split('?').next().unwrap_or_default())
    }

    /// A URL that the backend wrote, as the client can follow it.
    pub(crate) fn link(&self, url: &str, backend: &str, client_host: &str) -> String {
        let (scheme_and_host, rest) = match url.find("://").filter(|i| !url[..*i].contains(['/', '?', '#'])) {
            Some(i) => {
                let host_at = i + 3;
                let end = url[host_at..].find(['/', '?', '#']).map_or(url.len(), |e| host_at + e);
                ((&url[..end], &url[host_at..end]), &url[end..])
            }
            None => match url.strip_prefix("//") {
                Some(after) => {
                    let end = after.find(['/', '?', '#']).map_or(url.len(), |e| 2 + e);
                    ((&url[..end], &url[2..end]), &url[end..])
                }
                None => (("", ""), url),
            },
        };
        let (before, host) = scheme_and_host;
        let elsewhere = !host.is_empty() && host != backend && host != client_host;
        if elsewhere || !rest.starts_with('/') {
            return url.to_owned();
        }
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (path, tail) = rest.split_at(end);
        let before = if !host.is_empty() && host == client_host { before } else { "" };
        if path.starts_with(&self.prefix) {
            return format!("{before}{path}{tail}");
        }
        format!("{before}{}{tail}", join(&self.prefix, path))
    }

    /// Rewrites the links of an HTML page; anything else passes.
    pub(crate) async fn page(
        &self,
        headers: &mut HeaderMap,
        body: Body,
        backend: &str,
        client_host: &str,
    ) -> Result<Body, ApiError> {
        let text = |name| headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok()).unwrap_or_default();
        let media = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        let zipped = match text(CONTENT_ENCODING) {
            "" => false,
            "gzip" => true,
            _ => return Ok(body),
        };
        if media != "text/html" {
            return Ok(body);
        }
        let mut chunks = body.into_stream();
        let mut all = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            all.extend_from_slice(&chunk.map_err(ApiError::internal)?);
            if all.len() > PAGE_LIMIT_BYTES {
                let first = futures::stream::iter([Ok(all.freeze())]);
                return Ok(Body::stream(first.chain(chunks)));
            }
        }
        let mut page = Vec::new();
        if zipped {
            let unzipped = GzDecoder::new(&all[..]).take(PAGE_LIMIT_BYTES as u64 + 1).read_to_end(&mut page);
            if unzipped.is_err() || page.len() > PAGE_LIMIT_BYTES {
                return Ok(Body::whole(all.freeze()));
            }
        } else {
            page.extend_from_slice(&all);
        }
        let mut rewritten = rewrite_html(&page, |url| self.link(url, backend, client_host));
        if zipped {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&rewritten).map_err(ApiError::internal)?;
            rewritten = encoder.finish().map_err(ApiError::internal)?;
        }
        headers.remove(CONTENT_LENGTH);
        Ok(Body::whole(Bytes::from(rewritten)))
    }
}

/// Copies a page, with the URLs of its start tags changed.
fn rewrite_html(page: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + page.len() / 8);
    let mut at = 0;
    while at < page.len() {
        let Some(open) = page[at..].iter().position(|b| *b == b'<').map(|i| at + i) else { break };
        out.extend_from_slice(&page[at..open]);
        if page[open..].starts_with(b"<!--") {
            let end = find(&page[open..], b"-->").map_or(page.len(), |i| open + i + 3);
            out.extend_from_slice(&page[open..end]);
            at = end;
            continue;
        }
        let end = tag_end(page, open);
        let tag = &page[open..end];
        match std::str::from_utf8(tag).ok().and_then(|t| rewrite_tag(t, &change)) {
            Some(changed) => out.extend_from_slice(changed.as_bytes()),
            None => out.extend_from_slice(tag),
        }
        at = end;
    }
    out.extend_from_slice(&page[at.min(page.len())..]);
    out
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|w| w == wanted)
}

/// The position behind the tag's `>`, which may stand in quotes before.
fn tag_end(page: &[u8], open: usize) -> usize {
    let mut quote = None;
    for (i, b) in page.iter().enumerate().skip(open + 1) {
        match (quote, *b) {
            (Some(q), b) if q == b => quote = None,
            (None, b'"' | b'\'') => quote = Some(*b),
            (None, b'>') => return i + 1,
            _ => {}
        }
    }
    page.len()
}

/// The tag with its links changed; `None` where nothing of it is a link.
fn rewrite_tag(tag: &str, change: impl Fn(&str) -> String) -> Option<String> {
    let inner = tag.strip_prefix('<')?;
    let name: String = inner.chars().take_while(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let (_, attributes) = LINKS.iter().find(|(element, _)| *element == name)?;
    let mut out = String::with_capacity(tag.len() + 64);
    let mut rest = &tag[1 + name.len()..];
    out.push_str(&tag[..1 + name.len()]);
    let mut changed = false;
    while let Some(equals) = rest.find('=') {
        let before = &rest[..equals];
        let key =
            before.trim_end().rsplit(|c: char| c.is_ascii_whitespace() || c == '"' || c == '\'' || c == '/').next();
        let after = &rest[equals + 1..];
        let blank = after.len() - after.trim_start().len();
        out.push_str(&rest[..equals + 1 + blank]);
        let after = &after[blank..];
        let (open, value, close) = match after.chars().next() {
            Some(q @ ('"' | '\'')) => {
                let value = &after[1..];
                let end = value.find(q).unwrap_or(value.len());
                (1, &value[..end], usize::from(end < value.len()))
            }
            _ => {
                let end = after.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(after.len());
                (0, &after[..end], 0)
            }
        };
        out.push_str(&after[..open]);
        if key.is_some_and(|k| attributes.iter().any(|a| a.eq_ignore_ascii_case(k))) {
            out.push_str(&change(&value.replace("&amp;", "&")).replace('&', "&amp;"));
            changed = true;
        } else {
            out.push_str(value);
        }
        out.push_str(&after[open + value.len()..open + value.len() + close]);
        rest = &after[open + value.len() + close..];
    }
    out.push_str(rest);
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> Rewrite {
        Rewrite { prefix: "/api/v1/namespaces/a/services/s/proxy".to_owned() }
    }

    #[test]
    fn links_of_the_backend_lead_through_the_proxy_and_others_do_not() {
        let check = |url: &str, wanted: &str| assert_eq!(proxy().link(url, "10.0.0.1:80", "api:6443"), wanted, "{url}");
        check("/x/", "/api/v1/namespaces/a/services/s/proxy/x/");
        check("/x?a=/b#c", "/api/v1/namespaces/a/services/s/proxy/x?a=/b#c");
        check("http://10.0.0.1:80/x", "/api/v1/namespaces/a/services/s/proxy/x");
        check("https://api:6443/x", "https://api:6443/api/v1/namespaces/a/services/s/proxy/x");
        check("/api/v1/namespaces/a/services/s/proxy/y", "/api/v1/namespaces/a/services/s/proxy/y");
        check("//10.0.0.1:80/../x", "/api/v1/namespaces/a/services/s/x");
        for untouched in ["x/y", "http://example.com/x", "//example.com/x", "#top", "?a=b", "", "mailto:a@b"] {
            check(untouched, untouched);
        }
        assert_eq!(proxy().forwarded_uri("/x/?q"), "/api/v1/namespaces/a/services/s/proxy/x/");
    }

    #[test]
    fn only_the_urls_of_a_page_change() {
        let page = br#"<html><!-- <a href="/c"> --><A class="x>y" HREF='/a?b=1&amp;c'>/t</A><img src=/i alt="/no"><p title="/n">&lt;a href="/z"&gt;"#;
        let out = String::from_utf8(rewrite_html(page, |u| format!("P{u}"))).unwrap_or_default();
        assert_eq!(
            out,
            r#"<html><!-- <a href="/c"> --><A class="x>y" HREF='P/a?b=1&amp;c'>/t</A><img src=P/i alt="/no"><p title="/n">&lt;a href="/z"&gt;"#
        );
        for broken in ["<a href", "<a href=", "<a href=\"/x", "<", "<!--", "<a =x href=/y"] {
            assert!(!rewrite_html(broken.as_bytes(), str::to_owned).is_empty(), "{broken}");
        }
    }
}
