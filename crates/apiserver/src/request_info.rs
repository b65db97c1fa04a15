//! What a request is about: verb, resource, namespace, name, subresource; and its query.

use std::borrow::Cow;

use http::Method;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// The path, decoded.
    pub(crate) path: String,
    /// `get`, `list`, `watch`, …; of a path that is no resource the method in lower case.
    pub(crate) verb: &'static str,
    /// Whether this is about a resource.
    pub(crate) is_resource: bool,
    /// API group; empty for core.
    pub(crate) group: String,
    /// API version.
    pub(crate) version: String,
    /// Plural.
    pub(crate) resource: String,
    /// Subresource; empty for the object itself.
    pub(crate) subresource: String,
    /// Namespace; empty cluster-wide.
    pub(crate) namespace: String,
    /// Name; empty for collections.
    pub(crate) name: String,
    /// What follows the subresource (`proxy/…`), with its leading slash.
    pub(crate) rest: String,
    /// Whether the path begins with `watch/`, as watches once did.
    pub(crate) deprecated_watch: bool,
}

/// Decodes `%41`; malformed escapes stay as they are.
pub(crate) fn percent_decode(text: &str, plus_is_space: bool) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'%' || (plus_is_space && b == b'+')) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
        match bytes[i] {
            b'%' => match (hex(i + 1), hex(i + 2)) {
                (Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    i += 3;
                    continue;
                }
                _ => out.push(b'%'),
            },
            b'+' if plus_is_space => out.push(b' '),
            b => out.push(b),
        }
        i += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.trim_start_matches('/').split('/')
}

/// A decoded path with everything escaped that must be.
pub(crate) fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        if b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// The path as it is passed on: as it came, unless slashes were escaped in it.
pub(crate) fn passed_on<'a>(path: &'a str, decoded: &str) -> Cow<'a, str> {
    if segments(path).count() == segments(decoded).count() { Cow::Borrowed(path) } else { Cow::Owned(escape(decoded)) }
}

/// The last segments of a path, as they are passed on: as they came, unless slashes were escaped before.
fn rest_of(path: &str, decoded: &str, tail: &[&str]) -> String {
    let before = segments(decoded).count() - tail.len();
    if segments(path).take(before).any(|s| percent_decode(s, false).contains('/')) {
        return escape(&format!("/{}", tail.join("/")));
    }
    format!("/{}", segments(path).skip(before).collect::<Vec<_>>().join("/"))
}

impl RequestInfo {
    /// Reads method, path and whether the query asks for a watch.
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let decoded = percent_decode(path, false);
        let mut info = RequestInfo { path: decoded.clone().into_owned(), ..RequestInfo::default() };
        info.verb = match *method {
            Method::GET => "get",
            Method::HEAD => "head",
            Method::POST => "post",
            Method::PUT => "put",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            Method::OPTIONS => "options",
            _ => "",
        };
        // An escaped slash separates like any other, as it does for upstream and for whom requests are
        // passed on to: what is authorized must be what they see.
        let mut parts = segments(&decoded);
        match parts.next() {
            Some("api") => {
                let Some(version) = parts.next().filter(|v| !v.is_empty()) else { return info };
                info.version = version.to_owned();
            }
            Some("apis") => {
                let (Some(group), Some(version)) = (parts.next(), parts.next().filter(|v| !v.is_empty())) else {
                    return info;
                };
                info.group = group.to_owned();
                info.version = version.to_owned();
            }
            _ => return info,
        }
        let mut rest: Vec<&str> = parts.collect();
        while rest.last().is_some_and(|l| l.is_empty())
            && rest.get(2).is_none_or(|s| *s != "proxy")
            && rest.get(4).is_none_or(|s| *s != "proxy")
        {
            rest.pop();
        }
        if rest.is_empty() {
            return info;
        }
        let mut watch = false;
        if rest[0] == "watch" && rest.len() > 1 {
            watch = true;
            info.deprecated_watch = true;
            rest.remove(0);
        }
        info.is_resource = true;
        let tail = if rest[0] == "namespaces" && rest.len() > 2 && rest[2] != "status" && rest[2] != "finalize" {
            info.namespace = rest[1].to_owned();
            &rest[2..]
        } else {
            &rest[..]
        };
        info.resource = tail[0].to_owned();
        info.name = tail.get(1).copied().unwrap_or_default().to_owned();
        info.subresource = tail.get(2).copied().unwrap_or_default().to_owned();
        if tail.len() > 3 {
            info.rest = rest_of(path, &decoded, &tail[3..]);
        }
        watch |= info.name.is_empty() && query.flag("watch");
        let named = !info.name.is_empty();
        info.verb = match *method {
            Method::GET | Method::HEAD if watch => "watch",
            Method::GET | Method::HEAD if named => "get",
            Method::GET | Method::HEAD => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ => "",
        };
        if watch && named {
            // `/watch/…/name`: a watch of one object.
            info.verb = "watch";
        }
        info
    }

    /// Whether the request may take as long as it likes.
    pub(crate) fn is_long_running(&self) -> bool {
        self.verb == "watch" || matches!(self.subresource.as_str(), "exec" | "attach" | "log" | "portforward" | "proxy")
    }

    /// Whether the request writes.
    pub(crate) fn is_mutating(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch" | "head" | "options")
    }

    /// The namespace as authorization sees it: a Namespace is in itself.
    pub(crate) fn scope(&self) -> &str {
        if self.resource == "namespaces" && self.group.is_empty() { &self.name } else { &self.namespace }
    }
}

/// A query, decoded on demand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    /// From what follows the `?`.
    pub(crate) fn new(query: Option<&str>) -> Self {
        Query(query.unwrap_or_default().to_owned())
    }

    /// The text itself.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key, true) == name).then(|| percent_decode(value, true))
        })
    }

    /// All values of a parameter.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0
            .split('&')
            .filter_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (percent_decode(key, true) == name).then(|| percent_decode(value, true).into_owned())
            })
            .collect()
    }

    /// Whether a parameter is true: upstream takes anything for that which does not say no.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v != "0" && !v.eq_ignore_ascii_case("false"))
    }
}

/// A duration as Go writes it: `1h2m3.5s`, `100ms`, `0`; `None` for anything else, and for what is negative.
pub(crate) fn go_duration(text: &str) -> Option<std::time::Duration> {
    if text == "0" {
        return Some(std::time::Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0_f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let end = rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |i| digits + i);
        seconds += number
            * match &rest[digits..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "\u{b5}s" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    std::time::Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty())
}

/// Whether a text that is no duration ends where a unit should follow.
pub(crate) fn missing_unit(text: &str) -> bool {
    text.ends_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
        && text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, path: &str, wanted: [&str; 6]) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let i = RequestInfo::parse(&method, path, &Query::new(Some(query)));
        assert_eq!([i.verb, &i.group, &i.resource, &i.namespace, &i.name, &i.subresource], wanted, "{method} {path}");
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        check(Method::GET, "/api/v1/namespaces/a/pods/b", ["get", "", "pods", "a", "b", ""]);
        check(Method::GET, "/api/v1/pods", ["list", "", "pods", "", "", ""]);
        check(Method::GET, "/api/v1/pods?watch=1", ["watch", "", "pods", "", "", ""]);
        check(Method::GET, "/api/v1/watch/namespaces/a/pods", ["watch", "", "pods", "a", "", ""]);
        check(Method::GET, "/api/v1/namespaces/a", ["get", "", "namespaces", "", "a", ""]);
        check(Method::PUT, "/api/v1/namespaces/a/finalize", ["update", "", "namespaces", "", "a", "finalize"]);
        check(
            Method::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            ["deletecollection", "apps", "deployments", "a", "", ""],
        );
        check(
            Method::PATCH,
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            ["patch", "apps", "deployments", "a", "d", "scale"],
        );
        check(
            Method::GET,
            "/api/v1/namespaces/a/services/s:80/proxy/x/y",
            ["get", "", "services", "a", "s:80", "proxy"],
        );
        check(Method::GET, "/healthz", ["get", "", "", "", "", ""]);
        check(Method::GET, "/apis/apps/v1", ["get", "apps", "", "", "", ""]);
    }

    #[test]
    fn an_escaped_slash_separates_but_before_a_proxied_path() {
        let rest = |path: &str| RequestInfo::parse(&Method::GET, path, &Query::default()).rest;
        assert_eq!(rest("/api/v1/nodes/n/proxy/x%2Fy/z/"), "/x%2Fy/z/");
        assert_eq!(rest("/api/v1/nodes/n/proxy/"), "/");
        assert_eq!(rest("/api/v1/nodes/n/proxy"), "");
        assert_eq!(rest("/api/v1/nodes%2Fn/proxy/x%2Fy%20z"), "/x/y%20z");
        check(Method::GET, "/api/v1/nodes%2Fn/proxy/x", ["get", "", "nodes", "", "n", "proxy"]);
        check(Method::GET, "/api/v1/namespaces/a%2fpods/b%2Fstatus", ["get", "", "pods", "a", "b", "status"]);
    }

    #[test]
    fn queries_are_decoded() {
        let q = Query::new(Some("labelSelector=a%3Db%2Cc+in+(d)&limit=5&command=x&command=y%20z"));
        assert_eq!(q.get("labelSelector").as_deref(), Some("a=b,c in (d)"));
        assert_eq!(q.all("command"), ["x", "y z"]);
        assert_eq!(q.get("missing"), None);
    }
}
