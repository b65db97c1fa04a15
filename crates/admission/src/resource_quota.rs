//! ResourceQuota: what a create would use must fit under `spec.hard`.
//!
//! Usage is counted from the watch cache, which shows every acknowledged write, plus what admitted
//! requests are about to write, creates and updates alike. [`evaluate`] says what one object counts as,
//! [`book`] keeps the sums, each change being looked at once. On a store that other servers write too,
//! [`charge`] also raises `status.used` before the object is written, as upstream's plugin does, so that
//! servers side by side see what each is about to write. Lowering it is the quota controller's part.

mod book;
mod charge;
mod evaluate;

use std::collections::HashMap;
use std::sync::Arc;

use ironkeel_object::{Map, ObjectMeta, Quantity, Value};
use ironkeel_registry::{ApiError, Attributes, Operation, object_key};
use parking_lot::Mutex;

use crate::Cluster;
use crate::usage::Amounts;
use book::{Book, Charge, Share};
use evaluate::{in_scope, usage_of};

/// Computing resources of which every container must say how much, where a quota limits them.
const COMPUTE: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
/// Books that are kept before half of the idle ones are put away, those first that nobody has asked for longest. Such a
/// book is only a cache: what it says is counted anew when it is asked for again.
const BOOKS: usize = 4_096;

fn request_of(a: &Attributes<'_>) -> usize {
    std::ptr::from_ref(a.annotations).addr()
}

/// The plugin: a book for each resource of each namespace that has a quota.
#[derive(Default)]
pub(crate) struct ResourceQuota(Mutex<Books>);

#[derive(Default)]
struct Books {
    all: HashMap<String, (Arc<Book>, u64)>,
    /// Counts how often books were asked for.
    asked: u64,
}

impl Books {
    /// The book of that name, made where there is none.
    fn open(&mut self, name: String) -> Arc<Book> {
        self.asked += 1;
        if self.all.len() >= BOOKS && !self.all.contains_key(&name) {
            self.put_away();
        }
        let (book, last) = self.all.entry(name).or_default();
        *last = self.asked;
        book.clone()
    }

    /// Forgets half of the books that nobody uses now.
    fn put_away(&mut self) {
        let idle = |book: &Arc<Book>| Arc::strong_count(book) == 1 && book.is_idle();
        let mut times: Vec<u64> = self.all.values().filter(|(book, _)| idle(book)).map(|(_, last)| *last).collect();
        times.sort_unstable();
        let Some(until) = times.get(times.len() / 2).copied() else { return };
        self.all.retain(|_, (book, last)| *last > until || !idle(book));
    }
}

fn name_of(a: &Attributes<'_>) -> String {
    format!("{}/{}/{}", a.row.group(), a.row.plural(), a.namespace)
}

fn counts(a: &Attributes<'_>, object: &Value, old: Option<&Value>) -> bool {
    match a.operation {
        Operation::Create => a.subresource.is_empty(),
        Operation::Update if a.row.group().is_empty() && a.row.plural() == "pods" => {
            let deadline = |o: &Value| o.i64_at(&["spec", "activeDeadlineSeconds"]).is_some_and(|s| s >= 0);
            a.subresource == "resize"
                || (a.subresource.is_empty() && old.is_some_and(|o| deadline(o) != deadline(object)))
        }
        Operation::Update => {
            a.is("", "persistentvolumeclaims") || a.is("", "services") || a.is("resource.k8s.io", "resourceclaims")
        }
        _ => false,
    }
}

/// What one quota is asked for.
struct Asked {
    name: String,
    more: Amounts,
}

impl Asked {
    fn untold(&self) -> Share {
        Share { quota: self.name.clone(), more: self.more.clone(), told: false }
    }
}

impl ResourceQuota {
    pub(crate) async fn validate(
        &self,
        c: &Cluster,
        a: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        // Events are many, and come and go on their own.
        if !counts(a, object, old) || !a.row.namespaced() || a.row.plural() == "events" || a.namespace.is_empty() {
            return Ok(());
        }
        let quotas = c.list("", "resourcequotas", a.namespace);
        if quotas.is_empty() {
            return Ok(());
        }
        let (object, old) = (as_counted(c, a, object).await?, as_counted_before(c, a, old).await?);
        let (object, old) = (object.as_ref(), old.as_ref());
        let book = self.0.lock().open(name_of(a));
        let asked = reserve(c, a, &book, &quotas, object, old)?;
        if asked.is_empty() || a.dry_run {
            return Ok(());
        }
        match c.registry.as_ref().filter(|r| r.store().shared()) {
            Some(registry) => {
                let charged = charge::charge(c, registry, a, &book, &key(a, object), &asked).await;
                if charged.is_err() {
                    book.give_back(&key(a, object), request_of(a));
                }
                charged
            }
            None => Ok(()),
        }
    }

    /// The caches show what the request wrote, or it wrote nothing.
    pub(crate) fn rolled_back(&self, a: &Attributes<'_>, object: &Value) {
        let book = self.0.lock().all.get(&name_of(a)).map(|(book, _)| book.clone());
        if let Some(book) = book {
            book.give_back(&key(a, object), request_of(a));
        }
    }
}

fn key(a: &Attributes<'_>, object: &Value) -> String {
    object_key(a.namespace, object.name())
}

/// Claims of devices are counted in the form of `v1`.
async fn as_counted<'v>(
    c: &Cluster,
    a: &Attributes<'_>,
    object: &'v Value,
) -> Result<std::borrow::Cow<'v, Value>, ApiError> {
    use std::borrow::Cow;
    let other = a.row.group() == "resource.k8s.io" && a.row.plural() == "resourceclaims";
    let registry = c.registry.as_ref().filter(|_| other && a.row.kind.resource.version != "v1");
    let v1 = registry.and_then(|r| Some((r, r.row(a.row.group(), "v1", a.row.plural())?)));
    match v1 {
        Some((registry, row)) => registry.convert(a.row, &row, object.clone()).await.map(Cow::Owned),
        None => Ok(Cow::Borrowed(object)),
    }
}

async fn as_counted_before<'v>(
    c: &Cluster,
    a: &Attributes<'_>,
    old: Option<&'v Value>,
) -> Result<Option<std::borrow::Cow<'v, Value>>, ApiError> {
    match old {
        Some(old) => as_counted(c, a, old).await.map(Some),
        None => Ok(None),
    }
}

/// Checks every quota that sees the object, and keeps what it will use; answers what each is asked for.
fn reserve(
    c: &Cluster,
    a: &Attributes<'_>,
    book: &Book,
    quotas: &[Arc<Value>],
    object: &Value,
    old: Option<&std::borrow::Cow<'_, Value>>,
) -> Result<Vec<Asked>, ApiError> {
    let (group, plural) = (a.row.group(), a.row.plural());
    let wanted = usage_of(group, plural, object);
    if wanted.values().any(|q| q.signum() < 0) {
        let names: Vec<&str> = wanted.iter().filter(|(_, q)| q.signum() < 0).map(|(n, _)| n.as_str()).collect();
        return Err(a.forbidden(&format!("quota usage is negative for resource(s): {}", names.join(","))));
    }
    let before = old.map(|o| usage_of(group, plural, o)).unwrap_or_default();
    let nothing = Amounts::new();
    let own = key(a, object);
    let mut sums = book.look(c, a, quotas);
    let mut asked = Vec::new();
    for quota in quotas.iter().filter(|q| in_scope(q, plural, object)) {
        // Of what comes into the quota's scope by this update, all is new.
        let known = old.is_some_and(|o| in_scope(quota, plural, o));
        let before = if known { &before } else { &nothing };
        let hard = hard(quota);
        if group.is_empty()
            && plural == "pods"
            && let Some(missing) = unspecified(object, &hard)
        {
            return Err(a.forbidden(&format!("failed quota: {}: must specify {missing}", quota.name())));
        }
        let mut more = more(&wanted, before);
        more.retain(|name, q| !q.is_zero() && hard.iter().any(|(n, _)| n == name));
        if more.is_empty() {
            continue;
        }
        let used = sums.used(quota, &own, |_| true);
        fits(a, quota, &hard, &more, &used)?;
        asked.push(Asked { name: quota.name().to_owned(), more });
    }
    if !a.dry_run && !asked.is_empty() {
        sums.keep(
            own,
            Charge {
                request: request_of(a),
                base: old.map(|o| o.resource_version().parse().unwrap_or(0)),
                shares: asked.iter().map(Asked::untold).collect(),
            },
        );
    }
    Ok(asked)
}

/// What is used more than before.
fn more(wanted: &Amounts, before: &Amounts) -> Amounts {
    let grown = wanted.iter().filter(|(name, q)| before.get(*name).is_none_or(|b| *q > b));
    grown.map(|(name, q)| (name.clone(), before.get(name).map_or(*q, |b| *q - *b))).collect()
}

/// `cpu for: a,b; memory for: b`, where containers leave out what the quota limits.
fn unspecified(pod: &Value, hard: &[(&str, Quantity)]) -> Option<String> {
    // A Pod with resources of its own need not say more.
    let own = |part: &str| pod.at(&["spec", "resources", part]).is_some_and(|r| !r.is_empty());
    if own("requests") || own("limits") {
        return None;
    }
    let mut missing = Vec::new();
    for (resource, _) in hard.iter().filter(|(k, _)| COMPUTE.contains(k)) {
        let (part, name) = resource.split_once('.').unwrap_or(("requests", resource));
        let mut names: Vec<&str> = ["initContainers", "containers"]
            .into_iter()
            .flat_map(|l| pod.items_at(&["spec", l]))
            .filter(|c| c.at(&["resources", part, name]).is_none())
            .map(|c| c.str_at(&["name"]).unwrap_or_default())
            .collect();
        names.sort_unstable();
        if !names.is_empty() {
            missing.push(format!("{resource} for: {}", names.join(",")));
        }
    }
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// What a quota limits.
fn hard(quota: &Value) -> Vec<(&str, Quantity)> {
    let members = quota.at(&["spec", "hard"]).and_then(Value::as_object);
    let known = members.into_iter().flat_map(Map::iter);
    known.filter_map(|(k, v)| Some((k.as_ref(), Quantity::parse(v.as_str()?).ok()?))).collect()
}

/// An error where `more` on top of `used` is too much.
fn fits(
    a: &Attributes<'_>,
    quota: &Value,
    hard: &[(&str, Quantity)],
    more: &Amounts,
    used: &Amounts,
) -> Result<(), ApiError> {
    let (mut asked, mut have, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for (name, limit) in hard {
        let Some(more) = more.get(*name) else { continue };
        let now = used.get(*name).copied().unwrap_or(Quantity::ZERO);
        if now + *more > *limit {
            asked.push(format!("{name}={more}"));
            have.push(format!("{name}={now}"));
            limits.push(format!("{name}={limit}"));
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    Err(a.forbidden(&format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        quota.name(),
        asked.join(","),
        have.join(","),
        limits.join(",")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_are_put_away_when_they_are_many_but_not_those_in_use() {
        let mut books = Books::default();
        let held = books.open("held".to_owned());
        for i in 0..BOOKS {
            books.open(format!("b{i}"));
            books.open("often".to_owned());
        }
        assert!(books.all.len() <= BOOKS / 2 + 3, "{} books", books.all.len());
        assert!(Arc::ptr_eq(&held, &books.open("held".to_owned())));
        assert!(books.all.contains_key("often") && !books.all.contains_key("b0"));
        // With those that are in use alone nothing goes, and more can be opened.
        let all: Vec<_> = (0..2 * BOOKS).map(|i| books.open(format!("c{i}"))).collect();
        assert!(all.iter().enumerate().all(|(i, book)| Arc::ptr_eq(book, &books.open(format!("c{i}")))));
    }
}
