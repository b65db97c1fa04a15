//! `/debug/api_priority_and_fairness/dump_*`: tables for people, in upstream's columns.

use std::fmt::Write;
use std::sync::Arc;

use tokio::time::Instant;

use crate::level::Level;
use crate::seat::Work;
use crate::width::Width;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpKind {
    /// A row a level.
    PriorityLevels,
    /// A row a queue.
    Queues,
    /// A row a request; with user, verb and path or without.
    Requests {
        /// `includeRequestDetails`.
        details: bool,
    },
}

/// A level, and whether it is on its way out.
pub(crate) type Listed = (Arc<Level>, bool);

pub(crate) fn dump(kind: DumpKind, levels: &[Listed]) -> String {
    let rows = match kind {
        DumpKind::PriorityLevels => priority_levels(levels),
        DumpKind::Queues => queues(levels),
        DumpKind::Requests { details } => requests(levels, details),
    };
    columns(&rows)
}

/// Cells end with a comma and are padded to their column's width, as a Go tabwriter does it.
fn columns(rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    let last = rows.first().map_or(0, Vec::len);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.len() + 2).max().unwrap_or(0).max(8);
    let widths: Vec<usize> = (0..last).map(width).collect();
    for row in rows {
        for (c, cell) in row.iter().enumerate() {
            if c + 1 == row.len() {
                out.push_str(cell);
            } else {
                let _ = write!(out, "{:<width$}", format!("{cell},"), width = widths[c]);
            }
        }
        out.push('\n');
    }
    out
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn priority_levels(levels: &[Listed]) -> Vec<Vec<String>> {
    let mut rows = vec![strings(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ])];
    for (level, quiescing) in levels {
        let q = level.queues();
        let active = q.queues.iter().filter(|x| !x.waiting.is_empty()).count();
        rows.push(vec![
            level.name.to_string(),
            active.to_string(),
            q.idle().to_string(),
            quiescing.to_string(),
            q.waiting.to_string(),
            q.executing.to_string(),
            q.totals.dispatched.to_string(),
            q.totals.rejected.to_string(),
            q.totals.timed_out.to_string(),
            q.totals.cancelled.to_string(),
        ]);
    }
    rows
}

fn queues(levels: &[Listed]) -> Vec<Vec<String>> {
    let mut rows = vec![strings(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ])];
    for (level, _) in levels {
        for (i, q) in level.queues().queues.iter().enumerate() {
            rows.push(vec![
                level.name.to_string(),
                i.to_string(),
                q.waiting.len().to_string(),
                q.executing.to_string(),
                q.seats_in_use.to_string(),
                format!("{:.8}ss", q.next_r),
                q.waiting_initial.to_string(),
                q.waiting_max.to_string(),
                format!("{:.8}ss", q.waiting_work),
            ]);
        }
    }
    rows
}

struct Line<'a> {
    level: &'a str,
    schema: &'a str,
    queue: i64,
    index: i64,
    flow: &'a str,
    arrived: Instant,
    started: Option<Instant>,
    width: Width,
    work: Option<&'a Work>,
}

fn requests(levels: &[Listed], details: bool) -> Vec<Vec<String>> {
    let mut head = strings(&[
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ]);
    if details {
        head.extend(strings(&[
            "UserName",
            "Verb",
            "APIPath",
            "Namespace",
            "Name",
            "APIVersion",
            "Resource",
            "SubResource",
        ]));
    }
    let mut rows = vec![head];
    for (level, _) in levels {
        let q = level.queues();
        for (i, queue) in q.queues.iter().enumerate() {
            for (at, w) in queue.waiting.iter().enumerate() {
                rows.push(line(
                    &Line {
                        level: &level.name,
                        schema: &w.schema.name,
                        queue: i as i64,
                        index: at as i64,
                        flow: &w.flow,
                        arrived: w.arrived,
                        started: None,
                        width: w.width,
                        work: w.work.as_ref(),
                    },
                    details,
                ));
            }
        }
        for r in q.running() {
            rows.push(line(
                &Line {
                    level: &level.name,
                    schema: &r.schema.name,
                    queue: r.queue.map_or(-1, |i| i as i64),
                    index: -1,
                    flow: "",
                    arrived: r.arrived,
                    started: Some(r.started),
                    width: r.width,
                    work: r.work.as_ref(),
                },
                details,
            ));
        }
    }
    rows
}

fn line(l: &Line<'_>, details: bool) -> Vec<String> {
    let now = jiff::Timestamp::now();
    let wall = |at: Instant| {
        let ago = jiff::SignedDuration::try_from(at.elapsed()).unwrap_or_default();
        now.checked_sub(ago).unwrap_or(now).to_string()
    };
    let mut row = vec![
        l.level.to_owned(),
        l.schema.to_owned(),
        l.queue.to_string(),
        l.index.to_string(),
        l.flow.to_owned(),
        wall(l.arrived),
        l.width.seats.to_string(),
        l.width.final_seats.to_string(),
        format!("{:?}", l.width.extra),
        l.started.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), wall),
    ];
    if details {
        row.push(l.work.map(|w| w.user.name.clone()).unwrap_or_default());
        row.extend(l.work.map(|w| w.details.columns()).unwrap_or_default());
    }
    row
}
