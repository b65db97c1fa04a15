//! `status.used` is raised before an object is written, on a store that other servers write too.
//!
//! Each server knows its own pending writes; those of the others it sees in `status.used`, which is written
//! on the condition that nobody else wrote it meanwhile. Requests that wait for their turn are told together,
//! each of them once of each quota.

use std::sync::Arc;

use ironkeel_object::{Map, Quantity, Value};
use ironkeel_registry::{AdmitAll, ApiError, Attributes, Change, Reason, Registry, User, WriteRequest};
use parking_lot::Mutex;

use super::book::{Book, Waiting};
use super::{Asked, fits, hard, request_of};
use crate::Cluster;
use crate::usage::{Amounts, add, raise};

/// Who writes `status.used` in the name of the server.
const USER: &str = "system:apiserver";
const FIELD_MANAGER: &str = "kube-apiserver";

/// Raises `status.used` of each quota by what is asked of it, and of all that waits with it where that fits.
pub(super) async fn charge(
    c: &Cluster,
    registry: &Registry,
    a: &Attributes<'_>,
    book: &Book,
    key: &str,
    asked: &[Asked],
) -> Result<(), ApiError> {
    let _turn = book.telling.lock().await;
    let row = registry.row("", "v1", "resourcequotas").ok_or_else(|| ApiError::internal("quotas are not served"))?;
    let user = User { name: USER.to_owned(), groups: vec!["system:masters".to_owned()], ..User::default() };
    let request = WriteRequest {
        row,
        namespace: a.namespace.to_owned(),
        name: String::new(),
        subresource: "status".to_owned(),
        user: Arc::new(user),
        verb: "update",
        dry_run: false,
        field_manager: FIELD_MANAGER.to_owned(),
        admission: Arc::new(AdmitAll),
        options: Arc::new(Value::object()),
        warnings: Arc::default(),
        annotations: Arc::default(),
    };
    for one in asked {
        let Some(group) = book.waiting(key, request_of(a), &one.name) else { continue };
        let raise = Raise { c, a, book, key, one, group: Mutex::new(group) };
        match registry.update(&WriteRequest { name: one.name.clone(), ..request.clone() }, &raise).await {
            Ok(_) => {}
            // A quota that is gone limits nothing any more.
            Err(e) if e.reason == Reason::NotFound => {}
            Err(e) => return Err(e),
        }
        let group = raise.group.into_inner();
        let told: Vec<usize> = group.iter().map(|w| w.request).chain([request_of(a)]).collect();
        book.told(&told, &one.name);
    }
    Ok(())
}

/// One raise of one quota's `status.used`.
struct Raise<'r> {
    c: &'r Cluster,
    a: &'r Attributes<'r>,
    book: &'r Book,
    key: &'r str,
    one: &'r Asked,
    /// What others wait for; nobody any more where not all of it fits.
    group: Mutex<Vec<Waiting>>,
}

fn amounts(quota: &Value) -> Amounts {
    let members = quota.at(&["status", "used"]).and_then(Value::as_object);
    let known = members.into_iter().flat_map(Map::iter);
    known.filter_map(|(k, v)| Some((k.to_string(), Quantity::parse(v.as_str()?).ok()?))).collect()
}

impl Change for Raise<'_> {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        let known = self.c.list("", "resourcequotas", self.a.namespace);
        let mut used = self.book.look(self.c, self.a, &known).used(current, self.key, |share| share.told);
        raise(&mut used, &amounts(current));
        let hard = hard(current);
        let mut group = self.group.lock();
        let mut more = self.one.more.clone();
        group.iter().for_each(|waiting| add(&mut more, &waiting.more));
        if fits(self.a, current, &hard, &more, &used).is_err() {
            group.clear();
            more = self.one.more.clone();
            fits(self.a, current, &hard, &more, &used)?;
        }
        let mut changed = current.clone();
        let Some(members) = changed.as_object_mut() else { return Ok(changed) };
        let status = members.object("status").object("used");
        for (name, q) in more {
            let sum = used.get(&name).map_or(q, |have| *have + q);
            status.insert(name, sum.to_string());
        }
        Ok(changed)
    }
}
