//! The embedded store engine: an append-only log and an index in memory.
