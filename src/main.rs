use std::process::ExitCode;

fn main() -> ExitCode {
    mimeo::cli::main()
}
