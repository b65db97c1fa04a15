//! The `ironkeel` binary.

fn main() {}
