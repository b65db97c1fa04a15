//! Two rounds of mutation: who is asked again when the object changed behind their back.

use std::collections::BTreeSet;

use ironkeel_object::Value;

/// What the two rounds of one request know of each other.
#[derive(Default)]
pub(crate) struct Rounds {
    /// This is the second round.
    pub(crate) second: bool,
    /// Something changed the object, so there is to be a second round.
    pub(crate) again: bool,
    /// Of policies.
    pub(crate) policies: Callers,
    /// Of webhooks.
    pub(crate) webhooks: Callers,
}

/// Those that were asked, of one sort.
#[derive(Default)]
pub(crate) struct Callers {
    /// The object as they left it.
    left: Option<Value>,
    /// Asked so far, with `reinvocationPolicy: IfNeeded`.
    called: BTreeSet<String>,
    /// Of those, whose object changed afterwards.
    outdated: BTreeSet<String>,
}

impl Callers {
    /// A round begins with this object.
    pub(crate) fn begin(&mut self, second: bool, object: Option<&Value>) {
        if second && self.left.as_ref() != object {
            self.changed();
        }
    }

    /// The object changed: all that were asked before are to be asked again.
    pub(crate) fn changed(&mut self) {
        let called = std::mem::take(&mut self.called);
        self.outdated.extend(called);
    }

    /// One that may be asked again was asked.
    pub(crate) fn called(&mut self, key: String) {
        self.called.insert(key);
    }

    /// Whether it is to be asked again.
    pub(crate) fn is_outdated(&self, key: &str) -> bool {
        self.outdated.contains(key)
    }

    /// A round ends with this object.
    pub(crate) fn end(&mut self, object: Option<&Value>) {
        self.left = object.cloned();
    }
}
