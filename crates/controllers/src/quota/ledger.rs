//! What `status.used` may be lowered by.
//!
//! The status is never below what is there. Above it are objects that an API server is about to write: those
//! stay, so the status is lowered by what is seen to go, and to the plain count only when nobody has touched
//! either for [`LINGER`] (a write that failed after it was charged, a delete that this controller did not see).
//! Where objects come and go all the time nobody can tell those from what is on its way: what the status was above
//! the count at the very least during [`RESYNC`](super::RESYNC) goes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ironkeel_semantics::Amount;
use ironkeel_semantics::resources::ResourceList;
use parking_lot::Mutex;

/// How long the status stays above the count when nothing happens: longer than any write is on its way.
pub(super) const LINGER: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Account {
    /// What has gone since the status was written last.
    freed: ResourceList,
    /// The status that was above the count, and the count, and since when.
    above: Option<(ResourceList, ResourceList, Instant)>,
    /// Since when the status has been above the count at all, and by how much at the least.
    raised: Option<(Instant, ResourceList)>,
}

impl Account {
    /// The status may be the count, or is lowered: what was above it before says nothing more.
    fn begin_anew(&mut self) {
        (self.above, self.raised) = (None, None);
    }

    /// What the status was above the count during all of a resync, once that is over.
    fn left_over(&mut self, used: &ResourceList, counted: &ResourceList, now: Instant) -> Option<ResourceList> {
        let excess =
            |(name, count): (&String, &Amount)| (name.clone(), used.get(name).copied().unwrap_or_default() - *count);
        let excess: ResourceList = counted.iter().map(excess).collect();
        let (since, least) = self.raised.get_or_insert_with(|| (now, excess.clone()));
        least.retain(|name, least| {
            let now = excess.get(name).copied().unwrap_or_default();
            *least = if now < *least { now } else { *least };
            *least > Amount::default()
        });
        (now.duration_since(*since) >= super::RESYNC).then(|| std::mem::take(least))
    }
}

/// By quota.
#[derive(Default)]
pub(super) struct Ledger(Mutex<HashMap<String, Account>>);

impl Ledger {
    /// An object counts as `after` what it counted as `before`; only what is less is noted.
    pub(super) fn freed(&self, key: &str, before: &ResourceList, after: &ResourceList) {
        let mut accounts = self.0.lock();
        let freed = &mut accounts.entry(key.to_owned()).or_default().freed;
        for (name, amount) in before {
            let left = after.get(name).copied().unwrap_or_default();
            if *amount > left {
                *freed.entry(name.clone()).or_default() += *amount - left;
            }
        }
    }

    /// What has gone; noted no longer.
    pub(super) fn take(&self, key: &str) -> ResourceList {
        self.0.lock().get_mut(key).map(|account| std::mem::take(&mut account.freed)).unwrap_or_default()
    }

    /// The quota is gone.
    pub(super) fn forget(&self, key: &str) {
        self.0.lock().remove(key);
    }

    /// What the status should say, and whether that is the plain count.
    pub(super) fn settle(
        &self,
        key: &str,
        told: &ResourceList,
        freed: &ResourceList,
        counted: ResourceList,
    ) -> (ResourceList, bool) {
        self.settle_at(key, told, freed, counted, Instant::now())
    }

    fn settle_at(
        &self,
        key: &str,
        told: &ResourceList,
        freed: &ResourceList,
        counted: ResourceList,
        now: Instant,
    ) -> (ResourceList, bool) {
        let larger = |(name, count): (&String, &Amount)| {
            let told = told.get(name).copied().unwrap_or_default();
            let left = told - freed.get(name).copied().unwrap_or_default();
            (name.clone(), if left > *count { left } else { *count })
        };
        let mut used: ResourceList = counted.iter().map(larger).collect();
        let mut accounts = self.0.lock();
        let account = accounts.entry(key.to_owned()).or_default();
        if used == counted {
            account.begin_anew();
            return (used, true);
        }
        if let Some(least) = account.left_over(&used, &counted, now) {
            account.begin_anew();
            for (name, least) in least {
                let above = used.entry(name).or_default();
                *above -= least;
            }
            let settled = used == counted;
            return (used, settled);
        }
        match &account.above {
            Some((above, count, since)) if *above == used && *count == counted => {
                if now.duration_since(*since) >= LINGER {
                    account.begin_anew();
                    return (counted, true);
                }
            }
            _ => account.above = Some((used.clone(), counted, now)),
        }
        (used, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(count: i64) -> ResourceList {
        ResourceList::from([("configmaps".to_owned(), Amount::from_units(count))])
    }

    #[test]
    fn what_is_on_its_way_stays_until_nothing_happens_for_a_while() {
        let (ledger, start) = (Ledger::default(), Instant::now());
        // A server has charged a third one that is not there yet; one of the two is deleted.
        assert_eq!(ledger.settle_at("n/q", &maps(3), &maps(0), maps(2), start), (maps(3), false));
        ledger.freed("n/q", &maps(1), &maps(0));
        let freed = ledger.take("n/q");
        assert_eq!(ledger.settle_at("n/q", &maps(3), &freed, maps(1), start), (maps(2), false));
        assert_eq!(ledger.take("n/q"), ResourceList::new());
        // It never came.
        let soon = start + LINGER / 2;
        assert_eq!(ledger.settle_at("n/q", &maps(2), &maps(0), maps(1), soon), (maps(2), false));
        assert_eq!(ledger.settle_at("n/q", &maps(2), &maps(0), maps(1), start + LINGER), (maps(1), true));
    }

    #[test]
    fn what_never_came_goes_though_others_come_and_go_all_the_time() {
        use super::super::RESYNC;
        let (ledger, start) = (Ledger::default(), Instant::now());
        let step = LINGER / 2;
        for at in 0..60 {
            // Two never came; now and then up to three more are on their way.
            let (there, coming) = (10 + i64::from(at) % 7, i64::from(at) % 4);
            let (told, now) = (maps(there + 2 + coming), start + step * at);
            assert!(now < start + RESYNC);
            let (used, settled) = ledger.settle_at("n/q", &told, &maps(0), maps(there), now);
            assert_eq!((used, settled), (told, false), "after {at} steps");
        }
        let (used, settled) = ledger.settle_at("n/q", &maps(15), &maps(0), maps(12), start + RESYNC);
        assert_eq!((used, settled), (maps(13), false), "one is on its way, and stays");
        // And all over again.
        assert_eq!(ledger.settle_at("n/q", &maps(13), &maps(0), maps(12), start + RESYNC), (maps(13), false));
        assert_eq!(ledger.settle_at("n/q", &maps(13), &maps(0), maps(13), start + RESYNC), (maps(13), true));
    }

    #[test]
    fn the_status_is_never_below_what_is_there() {
        let ledger = Ledger::default();
        assert_eq!(ledger.settle("n/q", &ResourceList::new(), &maps(4), maps(2)), (maps(2), true));
        assert_eq!(ledger.settle("n/q", &maps(5), &maps(3), maps(4)), (maps(4), true));
    }
}
