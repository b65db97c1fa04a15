//! Benchmarks beside a reference.

fn main() {}
