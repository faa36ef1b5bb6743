//! The `campaignd` binary: see `campaignd --help`.

use std::process::ExitCode;

/// Gives memory back under churn; glibc's arenas grow (scale notes in ARCHITECTURE.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    campaignd::cli::main()
}
