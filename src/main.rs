//! The `tidegate` command: reads its arguments, runs the library, maps the result to an exit code.

/// In the static binary: musl's own has one lock for all threads (docs/performance.md).
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tidegate::cli::main(std::env::args_os())
}
