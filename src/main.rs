//! The `campaignd` binary.

fn main() {}
