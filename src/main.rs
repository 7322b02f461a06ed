//! The `tidegate` command: reads its arguments, runs the library, maps the result to an exit code.

fn main() -> std::process::ExitCode {
    tidegate::cli::main(std::env::args_os())
}
