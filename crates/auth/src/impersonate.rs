//! Acting as another: the `Impersonate-*` headers and what they ask permission for.
//!
//! Each check is verb `impersonate` on a virtual resource; when all are allowed, the request goes
//! on as [`Impersonation::user`].

use http::HeaderMap;

use crate::{AuthError, UserInfo};

/// One permission that an impersonation needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// API group: empty, or `authentication.k8s.io`.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// `users`, `groups`, `serviceaccounts`, `uids` or `userextras`.
    pub resource: &'static str,
    /// Key of a user extra.
    pub subresource: String,
    /// Namespace of a ServiceAccount.
    pub namespace: String,
    /// Who or what.
    pub name: String,
}

/// What the headers ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    /// The user to become.
    pub user: UserInfo,
    /// What the caller must be allowed (verb `impersonate`).
    pub checks: Vec<Check>,
}

/// Reads the headers; `None` where there are none.
///
/// # Errors
/// A group, uid or extra without a user; a value that is not text.
pub fn parse(headers: &HeaderMap) -> Result<Option<Impersonation>, AuthError> {
    let text = |name: &str, value: &http::HeaderValue| {
        String::from_utf8(value.as_bytes().to_vec()).map_err(|_| AuthError::ImpersonationHeader(name.to_owned()))
    };
    let first = |name: &str| headers.get(name).map(|v| text(name, v)).transpose().map(Option::unwrap_or_default);
    let name = first("impersonate-user")?;
    let uid = first("impersonate-uid")?;
    let groups: Vec<String> =
        headers.get_all("impersonate-group").iter().map(|v| text("impersonate-group", v)).collect::<Result<_, _>>()?;
    let mut user = UserInfo { name, uid, groups, ..UserInfo::default() };
    for (key, value) in headers {
        if let Some(key) = key.as_str().strip_prefix("impersonate-extra-") {
            user.extra.entry(unescape(key)).or_default().push(text(key, value)?);
        }
    }
    if user.name.is_empty() {
        return match (user.groups.is_empty(), user.uid.is_empty(), user.extra.is_empty()) {
            (true, true, true) => Ok(None),
            (false, ..) => Err(AuthError::ImpersonationWithoutUser("groups")),
            (_, false, _) => Err(AuthError::ImpersonationWithoutUser("uid")),
            _ => Err(AuthError::ImpersonationWithoutUser("userextras")),
        };
    }
    let checks = checks(&user);
    complete_groups(&mut user);
    Ok(Some(Impersonation { user, checks }))
}

fn checks(user: &UserInfo) -> Vec<Check> {
    let plain = |resource, name: &str| Check {
        group: "",
        version: "v1",
        resource,
        subresource: String::new(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    let mut checks = vec![match user.service_account() {
        Some((namespace, name)) => Check { namespace: namespace.to_owned(), ..plain("serviceaccounts", name) },
        None => plain("users", &user.name),
    }];
    checks.extend(user.groups.iter().map(|group| plain("groups", group)));
    let authentication = |resource, name: &str| Check { group: "authentication.k8s.io", ..plain(resource, name) };
    for (key, values) in &user.extra {
        checks.extend(values.iter().map(|v| Check { subresource: key.clone(), ..authentication("userextras", v) }));
    }
    if !user.uid.is_empty() {
        checks.push(authentication("uids", &user.uid));
    }
    checks
}

/// Groups that a user has without being told: a ServiceAccount's (where none were named), and
/// authenticated or not.
fn complete_groups(user: &mut UserInfo) {
    if user.groups.is_empty()
        && let Some((namespace, _)) = user.service_account()
    {
        user.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    if user.name == UserInfo::ANONYMOUS {
        if !user.in_group(UserInfo::UNAUTHENTICATED) {
            user.groups.push(UserInfo::UNAUTHENTICATED.to_owned());
        }
    } else if !user.in_group(UserInfo::UNAUTHENTICATED) {
        user.mark_authenticated();
    }
}

/// Header names cannot hold every character: extras' keys come percent-encoded.
pub(crate) fn unescape(key: &str) -> String {
    let bytes = key.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while i < bytes.len() {
        let hex =
            (bytes[i] == b'%').then(|| key.get(i + 1..i + 3)).flatten().and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(hex.unwrap_or(bytes[i]));
        i += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_owned())
}
