//! Shared caches with indexes, work queue, expectations, leader election, events.
