//! Acting as another: the `Impersonate-*` headers, and what must be allowed for it (KEP-5284).
//!
//! There are several ways to be allowed, the narrowest first: acting as the node that one runs on, as any
//! node, as a ServiceAccount, as a user of one's own kind; and the old way, which asks nothing about the
//! request itself. Each is a [`Plan`] of checks. Asking them is the API server's work, since webhooks may
//! have to be asked.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use http::HeaderMap;

use crate::configuration::{NOT_A_SUBDOMAIN, is_subdomain};
use crate::{AuthError, UserInfo};

/// From how many values on one question about all of them is worth asking first.
const MANY: usize = 4;
const AUTHENTICATION: &str = "authentication.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";

/// A way to be allowed to act as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A ServiceAccount as the node that its pod runs on.
    AssociatedNode,
    /// Anybody as any node.
    ArbitraryNode,
    /// Anybody as a ServiceAccount.
    ServiceAccount,
    /// Anybody as a user that is neither.
    UserInfo,
    /// The way of before: verb `impersonate`, whatever is then asked for.
    Legacy,
}

impl Mode {
    /// As it stands in verbs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "legacy",
        }
    }

    /// The verb that allowed it, for the audit log; nothing for the old way.
    pub fn constraint(self) -> Option<String> {
        (self != Mode::Legacy).then(|| self.verb())
    }

    fn verb(self) -> String {
        match self {
            Mode::Legacy => "impersonate".to_owned(),
            mode => format!("impersonate:{}", mode.name()),
        }
    }

    /// The verb under which the request itself must be allowed.
    pub fn verb_on(self, verb: &str) -> String {
        format!("impersonate-on:{}:{verb}", self.name())
    }

    /// Who is asked about: a ServiceAccount on a node is the same on each of them.
    pub fn requestor(self, user: &UserInfo) -> Cow<'_, UserInfo> {
        if self != Mode::AssociatedNode {
            return Cow::Borrowed(user);
        }
        let keys = user.extra.keys().cloned().collect();
        Cow::Owned(UserInfo { extra: BTreeMap::from([(NODE_KEYS.to_owned(), keys)]), ..user.clone() })
    }
}

/// A permission that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// `impersonate`, or with the mode behind it.
    pub verb: String,
    /// API group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// `users`, `nodes`, `serviceaccounts`, `groups`, `userextras` or `uids`.
    pub resource: &'static str,
    /// The extra key, for `userextras`.
    pub subresource: String,
    /// For `serviceaccounts`.
    pub namespace: String,
    /// The value asked for.
    pub name: String,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The request itself, under [`Mode::verb_on`].
    Request,
    /// This must be allowed.
    Check(Check),
    /// The first, or else each of the others.
    Either(Check, Vec<Check>),
    /// Never allowed, for this reason.
    Refuse(Check, String),
}

/// What must be allowed in one mode, and who acts then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The mode.
    pub mode: Mode,
    /// What is asked, in order.
    pub steps: Vec<Step>,
    /// The user to act as.
    pub user: UserInfo,
}

/// The user that the headers ask for, exactly as they say; `None` when there are none.
///
/// # Errors
/// Groups, a UID or extras without a user, or a value that is no text.
pub fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, AuthError> {
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
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user.groups.is_empty() && user.uid.is_empty() && user.extra.is_empty() {
        return Ok(None);
    }
    Err(AuthError::ImpersonationWithoutUser(shown(&user)))
}

/// A list of texts as upstream's messages show it.
fn shown_list(list: &[String]) -> String {
    let texts: Vec<String> = list.iter().map(|t| format!("{t:?}")).collect();
    if texts.is_empty() { "[]string(nil)".to_owned() } else { format!("[]string{{{}}}", texts.join(", ")) }
}

fn shown(user: &UserInfo) -> String {
    let mut out = format!("&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:", user.name, user.uid);
    out.push_str(&shown_list(&user.groups));
    out.push_str(", Extra:map[string][]string");
    if user.extra.is_empty() {
        out.push_str("(nil)}");
        return out;
    }
    let members: Vec<String> = user.extra.iter().map(|(k, v)| format!("{k:?}:{}", shown_list(v))).collect();
    let _ = write!(out, "{{{}}}}}", members.join(", "));
    out
}

/// The name of the node that a user name stands for.
fn node_of(name: &str) -> Option<&str> {
    name.strip_prefix("system:node:").filter(|n| is_subdomain(n))
}

fn applies(mode: Mode, wanted: &UserInfo, requestor: &UserInfo) -> bool {
    let only_named = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
    let (node, account) = (node_of(&wanted.name), wanted.service_account());
    match mode {
        Mode::AssociatedNode => {
            let at = requestor.extra.get(NODE_NAME).map(Vec::as_slice).unwrap_or_default();
            only_named && requestor.service_account().is_some() && node.is_some_and(|n| *at == [n.to_owned()])
        }
        Mode::ArbitraryNode => only_named && node.is_some(),
        Mode::ServiceAccount => only_named && account.is_some(),
        Mode::UserInfo => node.is_none() && account.is_none(),
        Mode::Legacy => true,
    }
}

/// The ways in which `requestor` might act as `wanted`, the narrowest first. Not `constrained`: the old one alone.
pub fn plans(wanted: &UserInfo, requestor: &UserInfo, constrained: bool) -> Vec<Plan> {
    let all = [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];
    let modes = all.into_iter().filter(|m| constrained || *m == Mode::Legacy);
    modes.filter(|m| applies(*m, wanted, requestor)).map(|m| plan(m, wanted)).collect()
}

fn plan(mode: Mode, wanted: &UserInfo) -> Plan {
    let constrained = mode != Mode::Legacy;
    let check = |group, resource, name: &str| Check {
        verb: mode.verb(),
        group,
        version: "v1",
        resource,
        name: name.to_owned(),
        ..Check::default()
    };
    // The older way asks about users and groups of the core group, which has none.
    let own = if constrained { AUTHENTICATION } else { "" };
    let mut user = wanted.clone();
    let mut named = check(own, "users", &wanted.name);
    if constrained && let Some(node) = node_of(&wanted.name) {
        let name = if mode == Mode::AssociatedNode { "*" } else { node };
        named = check(own, "nodes", name);
        user.groups = vec!["system:nodes".to_owned()];
    }
    if let Some((namespace, name)) = wanted.service_account() {
        named = Check { namespace: namespace.to_owned(), ..check(own, "serviceaccounts", name) };
        if wanted.groups.is_empty() {
            user.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
    }
    let mut steps = Vec::new();
    if constrained {
        steps.push(Step::Request);
    }
    steps.push(Step::Check(named));
    if !wanted.uid.is_empty() {
        steps.push(Step::Check(check(AUTHENTICATION, "uids", &wanted.uid)));
    }
    let groups: Vec<Check> = wanted.groups.iter().map(|g| check(own, "groups", g)).collect();
    if constrained && wanted.groups.iter().any(String::is_empty) {
        let why = "impersonating the empty string group is not allowed";
        steps.push(Step::Refuse(check(own, "groups", ""), why.to_owned()));
    } else if constrained && wanted.in_group(UserInfo::MASTERS) {
        let why = "impersonating the system:masters group is not allowed";
        steps.push(Step::Refuse(check(own, "groups", UserInfo::MASTERS), why.to_owned()));
    }
    push_each(&mut steps, constrained, check(own, "groups", "*"), groups);
    if constrained && let Err(why) = check_extra(&wanted.extra) {
        steps.push(Step::Refuse(check(AUTHENTICATION, "userextras", ""), why));
    }
    let extra = wanted.extra.iter().flat_map(|(key, values)| values.iter().map(move |v| (key, v)));
    let of =
        |key: &str, value: &str| Check { subresource: key.to_owned(), ..check(AUTHENTICATION, "userextras", value) };
    let extra: Vec<Check> = extra.map(|(key, value)| of(key, value)).collect();
    push_each(&mut steps, constrained, of("*", "*"), extra);
    complete_groups(&mut user);
    Plan { mode, steps, user }
}

fn push_each(steps: &mut Vec<Step>, constrained: bool, all: Check, each: Vec<Check>) {
    if constrained && each.len() >= MANY {
        steps.push(Step::Either(all, each));
    } else {
        steps.extend(each.into_iter().map(Step::Check));
    }
}

/// What the extra keys of a constrained impersonation must be like.
fn check_extra(extra: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
    const PATH: &str = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
    for (key, values) in extra {
        if key.is_empty() {
            return Err("impersonating the empty string key in extra is not allowed".to_owned());
        }
        let wrong = |value: &str, why: &str| {
            Err(format!(
                "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {value:?}: {why}"
            ))
        };
        let Some((domain, path)) = key.split_once('/').filter(|(d, p)| !d.is_empty() && !p.is_empty()) else {
            return wrong(key, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        };
        if !is_subdomain(domain) {
            return wrong(domain, NOT_A_SUBDOMAIN);
        }
        if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
            return wrong(path, &format!("Invalid path (regex used for validation is '{PATH}')"));
        }
        if key.to_lowercase() != *key {
            return Err(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
        }
        if values.iter().any(String::is_empty) {
            return Err("impersonating the empty string value in extra is not allowed".to_owned());
        }
    }
    Ok(())
}

fn complete_groups(user: &mut UserInfo) {
    if user.name == UserInfo::ANONYMOUS {
        if !user.in_group(UserInfo::UNAUTHENTICATED) {
            user.groups.push(UserInfo::UNAUTHENTICATED.to_owned());
        }
    } else {
        user.mark_authenticated();
    }
}

/// Undoes percent-encoding; what is wrongly encoded stays as it is.
pub(crate) fn unescape(key: &str) -> String {
    let bytes = key.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while i < bytes.len() {
        if bytes[i] != b'%' {
            out.push(bytes[i]);
            i += 1;
            continue;
        }
        let digits = bytes.get(i + 1..i + 3).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let Some(hex) = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok()) else {
            return key.to_owned();
        };
        out.push(hex);
        i += 3;
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_owned())
}
