//! The queues of one level: fair queuing for server requests, after upstream's adaptation of the
//! original fair queuing (KEP-1040, "Fair Queuing for Server Requests").
//!
//! Virtual time R rises by the seats that each busy queue is due. A queue's next dispatch stands at
//! a point of R; the request whose virtual finish comes first is dispatched first. Everything here
//! runs under the level's lock and takes constant time unless somebody waits.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::{Mode, Queuing};
use crate::demand::{Integrator, Shares};
use crate::matching::Schema;
use crate::seat::{RefusalReason, Work};
use crate::shuffle::{MAX_HAND, deal};
use crate::width::Width;

/// What a request is expected to take before it is known, in seconds.
const ESTIMATED_SERVICE_SECONDS: f64 = 0.003;
/// Bounds of the share of seats in use.
pub(crate) const SEAT_BOUNDS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
/// Bounds of the share of requests.
pub(crate) const REQUEST_BOUNDS: &[f64] = &[0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
/// Bounds of seats wanted over seats due.
pub(crate) const DEMAND_BOUNDS: &[f64] = &[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) id: u64,
    pub(crate) arrived: Instant,
    arrival_r: f64,
    pub(crate) width: Width,
    pub(crate) schema: Arc<Schema>,
    pub(crate) flow: Box<str>,
    pub(crate) work: Option<Work>,
    sender: oneshot::Sender<usize>,
}

/// A request that runs, or whose watchers are being told.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) queue: Option<usize>,
    pub(crate) arrived: Instant,
    pub(crate) started: Instant,
    pub(crate) width: Width,
    pub(crate) schema: Arc<Schema>,
    pub(crate) work: Option<Work>,
    /// Whether it has been answered and only its seats remain.
    lingering: bool,
}

/// One queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) executing: usize,
    pub(crate) seats_in_use: usize,
    pub(crate) next_r: f64,
    pub(crate) waiting_work: f64,
    pub(crate) waiting_initial: usize,
    pub(crate) waiting_max: usize,
}

impl Queue {
    fn busy(&self) -> bool {
        !self.waiting.is_empty() || self.executing > 0
    }

    /// Dispatch may not come before arrival: a queue that uses less than its due gains nothing by it.
    fn bound(&mut self) {
        if let Some(first) = self.waiting.front()
            && self.next_r < first.arrival_r
        {
            self.next_r = first.arrival_r;
        }
    }

    fn leave(&mut self, w: &Waiting) {
        self.waiting_work -= total_work(&w.width);
        self.waiting_initial -= w.width.seats as usize;
        self.waiting_max -= w.width.max() as usize;
        if self.waiting.is_empty() {
            self.waiting_work = 0.0;
        }
    }
}

/// Numbers for people.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) dispatched: u64,
    pub(crate) rejected: u64,
    pub(crate) timed_out: u64,
    pub(crate) cancelled: u64,
}

/// Points of virtual time at the last dispatch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastDispatch {
    pub(crate) r: f64,
    pub(crate) s: f64,
    pub(crate) bounds: [f64; 2],
    pub(crate) discounted: [f64; 2],
}

/// What became of a new request.
pub(crate) enum Start {
    /// It runs, in this place.
    Now(usize),
    /// It waits.
    Wait {
        /// Answers the place.
        receiver: oneshot::Receiver<usize>,
        /// Its queue.
        queue: usize,
        /// Its number.
        id: u64,
    },
    /// It is refused.
    Refused(RefusalReason),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) mode: Mode,
    pub(crate) limit: usize,
    pub(crate) queues: Vec<Queue>,
    running: Vec<Option<Running>>,
    free: Vec<usize>,
    pub(crate) r: f64,
    last: Instant,
    robin: usize,
    active: usize,
    enqueues: usize,
    pub(crate) waiting: usize,
    pub(crate) waiting_seats: usize,
    pub(crate) executing: usize,
    pub(crate) seats_in_use: usize,
    pub(crate) totals: Totals,
    pub(crate) last_dispatch: LastDispatch,
    pub(crate) demand: Integrator,
    pub(crate) seat_shares: Shares,
    pub(crate) waiting_shares: Shares,
    pub(crate) executing_shares: Shares,
    pub(crate) demand_shares: Shares,
}

fn total_work(width: &Width) -> f64 {
    f64::from(width.seats) * ESTIMATED_SERVICE_SECONDS + width.final_work()
}

impl Queues {
    pub(crate) fn new(mode: Mode, limit: usize, now: Instant) -> Self {
        let mut queues = Queues {
            mode,
            limit,
            queues: Vec::new(),
            running: Vec::new(),
            free: Vec::new(),
            r: 0.0,
            last: now,
            robin: 0,
            active: 0,
            enqueues: 0,
            waiting: 0,
            waiting_seats: 0,
            executing: 0,
            seats_in_use: 0,
            totals: Totals::default(),
            last_dispatch: LastDispatch::default(),
            demand: Integrator::new(now),
            seat_shares: Shares::new(SEAT_BOUNDS, now),
            waiting_shares: Shares::new(REQUEST_BOUNDS, now),
            executing_shares: Shares::new(REQUEST_BOUNDS, now),
            demand_shares: Shares::new(DEMAND_BOUNDS, now),
        };
        queues.configure(mode, limit, limit, now);
        queues
    }

    /// Takes over a configuration; `denominator` is what shares of use refer to.
    pub(crate) fn configure(&mut self, mode: Mode, limit: usize, denominator: usize, now: Instant) {
        self.advance(now);
        let mut places = 1;
        if let Mode::Queue(q) = mode {
            // More queues begin at once; superfluous ones end when they are empty.
            while self.queues.len() < q.queues {
                self.queues.push(Queue::default());
            }
            places = q.queues * q.length;
        }
        (self.mode, self.limit) = (mode, limit);
        self.shrink();
        self.waiting_shares.set_denominator(now, places as f64);
        self.executing_shares.set_denominator(now, denominator as f64);
        self.seat_shares.set_denominator(now, denominator as f64);
        self.demand_shares.set_denominator(now, denominator as f64);
        self.dispatch(now);
    }

    pub(crate) fn idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0 && self.seats_in_use == 0
    }

    fn queuing(&self) -> Option<Queuing> {
        match self.mode {
            Mode::Queue(q) => Some(q),
            _ => None,
        }
    }

    /// Queues above the configured number go when nobody is in them.
    fn shrink(&mut self) {
        let keep = self.queuing().map_or(0, |q| q.queues);
        while self.queues.len() > keep && self.queues.last().is_some_and(|q| !q.busy() && q.seats_in_use == 0) {
            self.queues.pop();
        }
    }

    /// Virtual time goes on at the seats that each busy queue is due.
    fn advance(&mut self, now: Instant) {
        let dt = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        if self.active > 0 {
            let wanted = (self.seats_in_use + self.waiting_seats).min(self.limit);
            self.r += dt * wanted as f64 / self.active as f64;
        }
    }

    fn note(&mut self, now: Instant) {
        let wanted = self.seats_in_use + self.waiting_seats;
        self.demand.set(now, wanted as f64);
        self.demand_shares.set(now, wanted);
        self.seat_shares.set(now, self.seats_in_use);
        self.waiting_shares.set(now, self.waiting);
        self.executing_shares.set(now, self.executing);
    }

    fn fits(&self, seats: usize) -> bool {
        match self.mode {
            Mode::Exempt => true,
            _ if seats > self.limit => self.executing == 0,
            _ => self.seats_in_use + seats <= self.limit,
        }
    }

    fn occupy(&mut self, running: Running) -> usize {
        let seats = running.width.max() as usize;
        self.executing += 1;
        self.seats_in_use += seats;
        if let Some(queue) = running.queue.and_then(|q| self.queues.get_mut(q)) {
            if !queue.busy() {
                self.active += 1;
            }
            queue.executing += 1;
            queue.seats_in_use += seats;
        }
        running.schema.flow.begin(seats);
        self.totals.dispatched += 1;
        match self.free.pop() {
            Some(place) => {
                self.running[place] = Some(running);
                place
            }
            None => {
                self.running.push(Some(running));
                self.running.len() - 1
            }
        }
    }

    /// A new request.
    pub(crate) fn start(&mut self, s: &Arc<Schema>, hash: u64, flow: &str, width: Width, work: Option<Work>) -> Start {
        let now = Instant::now();
        self.advance(now);
        let Some(q) = self.queuing() else {
            if !self.fits(width.max() as usize) {
                self.totals.rejected += 1;
                return Start::Refused(RefusalReason::ConcurrencyLimit);
            }
            let running =
                Running { queue: None, arrived: now, started: now, width, schema: s.clone(), work, lingering: false };
            let place = self.occupy(running);
            self.note(now);
            return Start::Now(place);
        };
        let index = self.choose(hash, q);
        if self.waiting == 0 && self.fits(width.max() as usize) {
            // Nobody waits: what queuing and dispatching would come to.
            let width = self.narrowed(width);
            let queue = &mut self.queues[index];
            if !queue.busy() || queue.next_r < self.r {
                queue.next_r = self.r;
            }
            let start_r = queue.next_r;
            queue.next_r += total_work(&width);
            self.robin = index;
            self.last_dispatch.r = self.r;
            self.last_dispatch.s = start_r;
            s.flow.queue_length.observe(1.0);
            let running = Running {
                queue: Some(index),
                arrived: now,
                started: now,
                width,
                schema: s.clone(),
                work,
                lingering: false,
            };
            let place = self.occupy(running);
            self.note(now);
            return Start::Now(place);
        }
        if self.seats_in_use >= self.limit && self.queues[index].waiting.len() >= q.length {
            self.totals.rejected += 1;
            return Start::Refused(RefusalReason::QueueFull);
        }
        let (sender, receiver) = oneshot::channel();
        let id = self.enqueue(index, now, s, flow, width, work, sender);
        self.dispatch(now);
        Start::Wait { receiver, queue: index, id }
    }

    #[allow(clippy::too_many_arguments)]
    fn enqueue(
        &mut self,
        index: usize,
        now: Instant,
        s: &Arc<Schema>,
        flow: &str,
        width: Width,
        work: Option<Work>,
        sender: oneshot::Sender<usize>,
    ) -> u64 {
        let queue = &mut self.queues[index];
        if !queue.busy() {
            queue.next_r = self.r;
            self.active += 1;
        }
        let id = self.enqueues as u64;
        queue.waiting_work += total_work(&width);
        queue.waiting_initial += width.seats as usize;
        queue.waiting_max += width.max() as usize;
        let waiting =
            Waiting { id, arrived: now, arrival_r: self.r, width, schema: s.clone(), flow: flow.into(), work, sender };
        queue.waiting.push_back(waiting);
        queue.bound();
        s.flow.queue_length.observe(queue.waiting.len() as f64);
        self.waiting += 1;
        self.waiting_seats += width.max() as usize;
        s.flow.queued(1, width.max() as i64);
        self.note(now);
        id
    }

    /// Of the flow's hand the queue with the least work waiting.
    fn choose(&mut self, hash: u64, q: Queuing) -> usize {
        let mut cards = [0; MAX_HAND];
        let dealt = deal(hash, q.queues, q.hand, &mut cards);
        let offset = self.enqueues % dealt;
        self.enqueues += 1;
        let (mut best, mut least) = (cards[offset], f64::INFINITY);
        for i in 0..dealt {
            let index = cards[(offset + i) % dealt];
            let work = self.queues[index].waiting_work;
            if work < least {
                (best, least) = (index, work);
            }
        }
        best
    }

    /// Final seats above the limit become fewer for longer.
    fn narrowed(&self, width: Width) -> Width {
        if width.final_seats as usize <= self.limit || self.limit == 0 {
            return width;
        }
        let seats = self.limit as u32;
        Width { final_seats: seats, extra: width.extra * width.final_seats / seats, ..width }
    }

    /// Dispatches as many as may run.
    pub(crate) fn dispatch(&mut self, now: Instant) {
        while self.waiting > 0 && self.seats_in_use < self.limit && self.dispatch_one(now) {}
    }

    fn dispatch_one(&mut self, now: Instant) -> bool {
        let mut best: Option<(usize, f64)> = None;
        let mut bounds = [f64::INFINITY, f64::NEG_INFINITY];
        let mut discounted = bounds;
        let n = self.queues.len();
        for step in 1..=n {
            let index = (self.robin + step) % n;
            let queue = &self.queues[index];
            let Some(first) = queue.waiting.front() else { continue };
            let less = queue.next_r - queue.seats_in_use as f64 * ESTIMATED_SERVICE_SECONDS;
            bounds = [bounds[0].min(queue.next_r), bounds[1].max(queue.next_r)];
            discounted = [discounted[0].min(less), discounted[1].max(less)];
            let finish = queue.next_r + total_work(&first.width);
            if best.is_none_or(|(_, least)| finish < least) {
                best = Some((index, finish));
            }
        }
        let Some((index, _)) = best else { return false };
        let Some(first) = self.queues[index].waiting.front() else { return false };
        if !self.fits(first.width.max() as usize) {
            first.schema.flow.no_accommodation.inc();
            return false;
        }
        let Some(w) = self.take(index, 0) else { return false };
        self.robin = index;
        let width = self.narrowed(w.width);
        let start_r = self.queues[index].next_r;
        self.last_dispatch = LastDispatch { r: self.r, s: start_r, bounds, discounted };
        let running = Running {
            queue: Some(index),
            arrived: w.arrived,
            started: now,
            width,
            schema: w.schema,
            work: w.work,
            lingering: false,
        };
        let place = self.occupy(running);
        let queue = &mut self.queues[index];
        queue.next_r = start_r + total_work(&width);
        queue.bound();
        self.note(now);
        if w.sender.send(place).is_err() {
            // Whoever waited has gone meanwhile.
            self.totals.cancelled += 1;
            self.release(place, now, true);
        }
        true
    }

    fn take(&mut self, index: usize, at: usize) -> Option<Waiting> {
        let queue = self.queues.get_mut(index)?;
        let w = queue.waiting.remove(at)?;
        queue.leave(&w);
        queue.bound();
        if !queue.busy() {
            self.active -= 1;
        }
        self.waiting -= 1;
        self.waiting_seats -= w.width.max() as usize;
        w.schema.flow.queued(-1, -(w.width.max() as i64));
        Some(w)
    }

    /// Takes a request out that waits no longer; false where it does not wait.
    pub(crate) fn abandon(&mut self, index: usize, id: u64, timed_out: bool) -> bool {
        let now = Instant::now();
        self.advance(now);
        let Some(at) = self.queues.get(index).and_then(|q| q.waiting.iter().position(|w| w.id == id)) else {
            return false;
        };
        self.take(index, at);
        self.totals.rejected += 1;
        if timed_out {
            self.totals.timed_out += 1;
        } else {
            self.totals.cancelled += 1;
        }
        self.shrink();
        self.note(now);
        // A wide request at the head may have held back narrower ones.
        self.dispatch(now);
        true
    }

    /// A request is answered. Answers its width where its seats must stay a while longer.
    pub(crate) fn finish(&mut self, place: usize, now: Instant) -> Option<Width> {
        self.advance(now);
        let running = self.running.get_mut(place)?.as_mut()?;
        running.lingering = true;
        let (width, index) = (running.width, running.queue);
        let took = now.saturating_duration_since(running.started).as_secs_f64();
        running.schema.flow.end();
        self.executing -= 1;
        if let Some(queue) = index.and_then(|q| self.queues.get_mut(q)) {
            queue.executing -= 1;
            queue.next_r -= f64::from(width.seats) * (ESTIMATED_SERVICE_SECONDS - took);
            queue.bound();
            if !queue.busy() {
                self.active -= 1;
            }
        }
        if !width.extra.is_zero() && !matches!(self.mode, Mode::Exempt) {
            self.note(now);
            self.dispatch(now);
            return Some(width);
        }
        self.free_seats(place, now);
        None
    }

    /// Gives the seats of an answered request back.
    pub(crate) fn free_seats(&mut self, place: usize, now: Instant) {
        self.advance(now);
        let Some(running) = self.running.get_mut(place).and_then(Option::take) else { return };
        let seats = running.width.max() as usize;
        self.free.push(place);
        self.seats_in_use -= seats;
        running.schema.flow.free(seats);
        if let Some(queue) = running.queue.and_then(|q| self.queues.get_mut(q)) {
            queue.seats_in_use -= seats;
        }
        self.shrink();
        self.note(now);
        self.dispatch(now);
    }

    /// Undoes a dispatch.
    fn release(&mut self, place: usize, now: Instant, at_once: bool) {
        if self.finish(place, now).is_some() && at_once {
            self.free_seats(place, now);
        }
    }

    /// Requests that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Running> {
        self.running.iter().flatten().filter(|r| !r.lingering)
    }
}
