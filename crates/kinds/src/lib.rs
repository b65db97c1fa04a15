//! The resource table: one file of hooks a kind.
