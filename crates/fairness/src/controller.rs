//! The whole of it: the configuration in force, classification, admission, lending and borrowing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use ironkeel_metrics::Text;
use ironkeel_object::{ObjectMeta, Value};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::allocate::{Claim, allocate};
use crate::bootstrap;
use crate::config::{CATCH_ALL, LevelConfig, Mode};
use crate::dump::{DumpKind, Listed, dump};
use crate::level::Level;
use crate::matching::{Digest, Distinguisher, Schema};
use crate::metrics::{self, Flow};
use crate::seat::{Refusal, Seat, Work, enter};
use crate::shuffle::flow_hash;
use crate::watchers::WatchCounts;
use crate::width::Width;

/// Most status updates of one FlowSchema in a minute: servers that disagree shall not fight.
const STATUS_UPDATES_A_MINUTE: usize = 6;

/// A condition that a FlowSchema's status should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusUpdate {
    /// Name of the FlowSchema.
    pub name: String,
    /// Whether its level is missing.
    pub dangling: bool,
    /// `Found` or `NotFound`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

struct Held {
    config: LevelConfig,
    level: Arc<Level>,
    /// No object asks for it any more; it goes when it is idle.
    quiescing: bool,
}

#[derive(Default)]
struct State {
    levels: HashMap<String, Held>,
    flows: HashMap<(String, String), Arc<Flow>>,
    nominal_sum: usize,
    fair_fraction: f64,
    updates: Vec<(Instant, String)>,
}

/// See the module.
pub struct Controller {
    seats: usize,
    schemas: ArcSwap<Vec<Arc<Schema>>>,
    state: Mutex<State>,
    watches: Arc<WatchCounts>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("seats", &self.seats).finish_non_exhaustive()
    }
}

/// The schema that a request belongs to, and with it the level.
#[derive(Clone, Debug)]
pub struct Classified(Arc<Schema>);

impl Classified {
    /// Name of the FlowSchema.
    pub fn flow_schema(&self) -> &str {
        &self.0.name
    }

    /// UID of the FlowSchema; empty for a mandatory one that is not stored.
    pub fn flow_schema_uid(&self) -> &HeaderValue {
        &self.0.uid
    }

    /// Name of the level.
    pub fn priority_level(&self) -> &str {
        &self.0.level.name
    }

    /// UID of the PriorityLevelConfiguration.
    pub fn priority_level_uid(&self) -> &HeaderValue {
        &self.0.level_uid
    }

    /// Most seats that the level allows one request; 0 for no limit of its own.
    pub fn max_seats(&self) -> u32 {
        self.0.level.max_seats()
    }

    /// Notes how many watchers a write will wake.
    pub fn observe_watchers(&self, count: usize) {
        self.0.flow.watch_count.observe(count as f64);
    }
}

impl Controller {
    /// With the mandatory objects alone; `seats` are shared by all levels that are not exempt.
    pub fn new(seats: usize) -> Self {
        let controller = Controller {
            seats: seats.max(1),
            schemas: ArcSwap::default(),
            state: Mutex::default(),
            watches: Arc::default(),
        };
        controller.digest(&[], &[]);
        controller
    }

    /// The watches in place.
    pub fn watches(&self) -> &Arc<WatchCounts> {
        &self.watches
    }

    /// Takes over the stored FlowSchemas and PriorityLevelConfigurations. Answers the conditions
    /// that the schemas' status should have and does not.
    pub fn digest(&self, schemas: &[Arc<Value>], levels: &[Arc<Value>]) -> Vec<StatusUpdate> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let mut configs: Vec<LevelConfig> = levels.iter().filter_map(|o| LevelConfig::read(o)).collect();
        let defaults = bootstrap::mandatory();
        let known: Vec<String> = configs.iter().map(|c| c.name.clone()).collect();
        configs.extend(defaults.iter().filter_map(LevelConfig::read).filter(|c| !known.contains(&c.name)));
        let state = &mut *state;
        state.take_over(configs, self.seats, now);
        self.compile(state, schemas, &defaults);
        state.adjust(self.seats, now, false);
        let mut updates: Vec<StatusUpdate> = schemas.iter().filter_map(|s| dangling(s, &known)).collect();
        state.updates.retain(|(at, _)| now.saturating_duration_since(*at) < Duration::from_secs(60));
        updates.retain(|u| state.updates.iter().filter(|(_, n)| *n == u.name).count() < STATUS_UPDATES_A_MINUTE);
        state.updates.extend(updates.iter().map(|u| (now, u.name.clone())));
        updates
    }

    fn compile(&self, state: &mut State, schemas: &[Arc<Value>], defaults: &[Value]) {
        let missing = defaults
            .iter()
            .filter(|d| d["kind"].as_str() == Some("FlowSchema") && !schemas.iter().any(|s| s.name() == d.name()));
        let mut compiled = Vec::new();
        for object in schemas.iter().map(|s| &**s).chain(missing) {
            let level = object.str_at(&["spec", "priorityLevelConfiguration", "name"]).unwrap_or_default();
            let Some(held) = state.levels.get(level).filter(|h| !h.quiescing) else { continue };
            let key = (level.to_owned(), object.name().to_owned());
            let flow = state.flows.entry(key).or_insert_with(|| Flow::new(level, object.name()));
            compiled.push(Arc::new(Schema::new(object, held.level.clone(), &held.config.uid, flow.clone())));
        }
        compiled.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        self.schemas.store(Arc::new(compiled));
    }

    /// The adjustment of what levels lend and borrow; every [`crate::ADJUSTMENT_SECONDS`].
    pub fn adjust(&self) {
        self.state.lock().adjust(self.seats, Instant::now(), true);
    }

    /// Which schema and level a request belongs to.
    pub fn classify(&self, request: &Digest<'_>) -> Option<Classified> {
        let schemas = self.schemas.load();
        let found = schemas.iter().find(|s| s.matches(request));
        // Whoever is in neither group of all users falls back on catch-all.
        let found = found.or_else(|| schemas.iter().find(|s| &*s.name == CATCH_ALL));
        found.cloned().map(Classified)
    }

    /// A seat for a classified request; waits at most `wait_limit` for it.
    pub async fn enter(
        &self,
        classified: &Classified,
        request: &Digest<'_>,
        width: Width,
        work: Option<Work>,
        wait_limit: Duration,
    ) -> Result<Seat, Refusal> {
        let schema = &classified.0;
        let flow = schema.distinguish(request);
        let hash = match schema.distinguisher {
            Distinguisher::None => flow_hash(&schema.name, ""),
            _ => flow_hash(&schema.name, flow),
        };
        enter(schema, hash, flow, width, work, wait_limit).await
    }

    /// Tables for people.
    pub fn dump(&self, kind: DumpKind) -> String {
        dump(kind, &self.listed())
    }

    /// `apiserver_flowcontrol_*`.
    pub fn render(&self, text: &mut Text) {
        let levels: Vec<Arc<Level>> = self.listed().into_iter().map(|(l, _)| l).collect();
        let (mut flows, fair) = {
            let state = self.state.lock();
            (state.flows.values().cloned().collect::<Vec<_>>(), state.fair_fraction)
        };
        flows.sort_by(|a, b| (&a.level, &a.schema).cmp(&(&b.level, &b.schema)));
        metrics::render(text, &flows, &levels, fair);
    }

    fn listed(&self) -> Vec<Listed> {
        let state = self.state.lock();
        let mut all: Vec<Listed> = state.levels.values().map(|h| (h.level.clone(), h.quiescing)).collect();
        all.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        all
    }
}

/// The condition that a schema lacks.
fn dangling(schema: &Value, levels: &[String]) -> Option<StatusUpdate> {
    let level = schema.str_at(&["spec", "priorityLevelConfiguration", "name"]).unwrap_or_default();
    // A mandatory level that is not stored counts as missing too: it is being written.
    let dangling = !levels.iter().any(|l| l == level);
    let (reason, message) = if dangling {
        let text = "references the PriorityLevelConfiguration object named";
        ("NotFound", format!("This FlowSchema {text} {level:?} but there is no such object"))
    } else {
        let text = "references the PriorityLevelConfiguration object named";
        ("Found", format!("This FlowSchema {text} {level:?} and it exists"))
    };
    let status = if dangling { "True" } else { "False" };
    let conditions = schema.items_at(&["status", "conditions"]);
    let has = conditions.iter().find(|c| c["type"].as_str() == Some("Dangling")).is_some_and(|c| {
        c["status"].as_str() == Some(status)
            && c["reason"].as_str() == Some(reason)
            && c["message"].as_str() == Some(message.as_str())
    });
    (!has).then(|| StatusUpdate { name: schema.name().to_owned(), dangling, reason, message })
}

fn round_percent(of: usize, percent: i64) -> usize {
    (of as f64 * percent as f64 / 100.0).round() as usize
}

impl State {
    /// Levels from their configurations, with nominal limits in proportion to shares.
    fn take_over(&mut self, configs: Vec<LevelConfig>, seats: usize, now: Instant) {
        for (name, held) in &mut self.levels {
            held.quiescing = !configs.iter().any(|c| c.name == *name);
        }
        self.levels.retain(|_, h| !(h.quiescing && h.level.queues().idle()));
        for config in configs {
            match self.levels.get_mut(&config.name) {
                Some(held) => held.config = config,
                None => {
                    let level = Level::new(&config, 0, now);
                    self.levels.insert(config.name.clone(), Held { config, level, quiescing: false });
                }
            }
        }
        let shares: i64 = self.levels.values().map(|h| h.config.shares).sum();
        self.nominal_sum = 0;
        for held in self.levels.values() {
            let c = &held.config;
            let nominal = (seats as f64 * c.shares as f64 / shares.max(1) as f64).ceil() as usize;
            let lendable = round_percent(nominal, c.lendable_percent);
            let borrow = c.borrowing_percent.map_or(seats, |p| round_percent(nominal, p));
            let mut limits = held.level.limits();
            let is_new = limits.nominal == 0 && limits.high == 0;
            limits.nominal = nominal;
            limits.low = nominal - lendable;
            limits.high = nominal + borrow;
            if is_new {
                limits.current = nominal - lendable / 2;
            }
            self.nominal_sum += nominal;
            if let Mode::Queue(q) = c.mode {
                held.level.set_max_seats(nominal, q.hand);
            }
        }
    }

    /// Divides the seats by what levels have wanted (KEP-1040, "Dispatching").
    fn adjust(&mut self, seats: usize, now: Instant, reap: bool) {
        if reap {
            self.levels.retain(|_, h| !(h.quiescing && h.level.queues().idle()));
        }
        let mut names = Vec::new();
        let mut claims = Vec::new();
        let (mut low_sum, mut least_sum) = (0, 0);
        let mut remaining = self.nominal_sum as i64;
        for (name, held) in &self.levels {
            let seen = held.level.queues().demand.reset(now);
            let mut limits = held.level.limits();
            limits.learn(seen);
            let high_water = limits.demand.max as usize;
            if held.config.mode == Mode::Exempt {
                limits.current = limits.low.max(high_water);
                limits.target = limits.current as f64;
                remaining -= limits.current as i64;
                continue;
            }
            let least = limits.low.max(limits.nominal.min(high_water));
            limits.target = limits.smoothed.max(least as f64);
            low_sum += limits.low;
            least_sum += least;
            names.push((name.clone(), least));
            claims.push(Claim { low: least as f64, high: limits.high as f64, target: limits.target });
        }
        let mut allocations = None;
        self.fair_fraction = 0.0;
        if remaining > least_sum as i64 {
            if let Some((found, fraction)) = allocate(self.nominal_sum as f64, &claims) {
                self.fair_fraction = fraction;
                allocations = Some(found);
            } else {
                tracing::warn!(?claims, "seats cannot be divided between the priority levels");
            }
        }
        for (i, (name, least)) in names.iter().enumerate() {
            let Some(held) = self.levels.get(name) else { continue };
            let mut limits = held.level.limits();
            limits.current = if remaining <= low_sum as i64 {
                limits.low
            } else if remaining <= least_sum as i64 {
                let share = (remaining - low_sum as i64) as f64 / (least_sum - low_sum).max(1) as f64;
                limits.low + ((least - limits.low) as f64 * share).round() as usize
            } else {
                allocations.as_ref().and_then(|a| a.get(i)).map_or(limits.current, |a| a.round() as usize)
            };
        }
        for held in self.levels.values() {
            let current = held.level.limits().current;
            let denominator = if current > 0 { current } else { (seats / 10).max(1) };
            held.level.queues().configure(held.config.mode, current, denominator, now);
        }
    }
}
