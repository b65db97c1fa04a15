//! PriorityLevelConfigurations, read. Absent members have upstream's defaults.

use ironkeel_object::{ObjectMeta, Value};

use crate::shuffle::{MAX_HAND, entropy_bits};

/// Most queues of a level (upstream's validation: 10 million; memory says less).
const MAX_QUEUES: i64 = 4_096;
/// Bits of entropy that a hand may use.
const MAX_HASH_BITS: u32 = 60;

/// Name of the level that is never limited.
pub(crate) const EXEMPT: &str = "exempt";
/// Name of the schema and the level for what nothing else matches.
pub(crate) const CATCH_ALL: &str = "catch-all";

/// What a level does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Runs them all.
    Exempt,
    /// Refuses at the limit.
    Reject,
    /// Lets them wait.
    Queue(Queuing),
}

/// The queues of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queuing {
    pub(crate) queues: usize,
    pub(crate) hand: usize,
    pub(crate) length: usize,
}

/// A level's configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LevelConfig {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) mode: Mode,
    pub(crate) shares: i64,
    pub(crate) lendable_percent: i64,
    pub(crate) borrowing_percent: Option<i64>,
}

impl LevelConfig {
    /// `None` for an object that upstream would call broken; such a level does not exist.
    pub(crate) fn read(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let kind = spec["type"].as_str()?;
        let (limited, exempt) = (&spec["limited"], &spec["exempt"]);
        let name = object.name();
        if (kind == "Exempt") != (name == EXEMPT) || (kind == "Limited") == limited.is_null() {
            return None;
        }
        let common = if kind == "Exempt" { exempt } else { limited };
        let mode = match (kind, limited.str_at(&["limitResponse", "type"])) {
            ("Exempt", _) => Mode::Exempt,
            ("Limited", None | Some("Reject")) => Mode::Reject,
            ("Limited", Some("Queue")) => {
                let queuing = limited.at(&["limitResponse", "queuing"]).filter(|q| !q.is_null())?;
                let number = |key: &str, default: i64| queuing[key].as_i64().unwrap_or(default);
                let queues = number("queues", 64).clamp(1, MAX_QUEUES) as usize;
                let hand = number("handSize", 8).max(1) as usize;
                if hand > queues || hand > MAX_HAND || entropy_bits(queues, hand) > MAX_HASH_BITS {
                    return None;
                }
                Mode::Queue(Queuing { queues, hand, length: number("queueLengthLimit", 50).max(1) as usize })
            }
            _ => return None,
        };
        Some(LevelConfig {
            name: name.to_owned(),
            uid: object.uid().to_owned(),
            mode,
            shares: common["nominalConcurrencyShares"].as_i64().unwrap_or(if kind == "Exempt" { 0 } else { 30 }).max(0),
            lendable_percent: common["lendablePercent"].as_i64().unwrap_or(0).clamp(0, 100),
            borrowing_percent: limited["borrowingLimitPercent"].as_i64().map(|p| p.max(0)),
        })
    }
}
