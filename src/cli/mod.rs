//! The command line: one file per subcommand; flags and environment become a typed configuration.
//!
//! Exit codes: 0 done, 1 failed, 2 usage error, 3 a wait that timed out. Errors are one line on standard error.

mod convert;
mod crd;
#[cfg(test)]
mod docs_tests;
mod flag;
mod flags;
mod manifest;
mod operator;
mod output;
mod render;
mod trigger;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use flag::Help;
use output::{CliError, print};

/// What runs a command with the arguments after its name.
type Run = fn(&[OsString]) -> Result<(), CliError>;

/// Name, help and function of each command.
const COMMANDS: [(&str, Help, Run); 5] = [
    ("trigger", trigger::HELP, trigger::main),
    ("render", render::HELP, render::main),
    ("convert", convert::HELP, convert::main),
    ("crd", without_flags("Usage: {me} crd   print the custom resource definition\n"), |arguments| {
        no_more(arguments).and_then(|()| print(&crd::manifest()))
    }),
    ("version", without_flags("Usage: {me} version   print the version\n"), |arguments| {
        no_more(arguments).and_then(|()| print(&format!("quarks-job {}\n", env!("CARGO_PKG_VERSION"))))
    }),
];

/// Its exit code is its own, so it has no row.
const PERSIST_OUTPUT: &str = "persist-output";
const PERSIST_OUTPUT_HELP: Help = without_flags(
    "\
Usage: quarks-job persist-output   store the output of its pod as Secrets

The sidecar: container output-persist, which the operator adds to pods of QuarksJobs with spec.output. It takes no flags: the
operator sets environment variables that say what to store, and the result is written to the container's termination message.

Exit codes: 0 done (data errors are in the termination message), 2 usage error, 143 stopped before everything was stored.
",
);

const fn without_flags(text: &'static str) -> Help {
    Help { head: text, flags: &[], tail: "" }
}

/// Runs the program; the first argument is its own name.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let program = arguments.next().unwrap_or_default();
    // kubectl runs `kubectl-qjob` for `kubectl qjob`.
    let is_plugin = Path::new(&program).file_name().is_some_and(|name| name == "kubectl-qjob");
    let (name, me) = if is_plugin { ("kubectl-qjob", "kubectl qjob") } else { ("quarks-job", "quarks-job") };
    let arguments: Vec<OsString> = arguments.collect();
    let command = arguments.first().map(|first| first.to_string_lossy()).unwrap_or_default();
    let mut topic = String::new();
    let result = match &*command {
        PERSIST_OUTPUT => {
            topic = format!(" {PERSIST_OUTPUT}");
            match no_more(&arguments[1..]) {
                _ if wants_help(&arguments) => help(&PERSIST_OUTPUT_HELP, me),
                Ok(()) => return crate::persist::main(),
                Err(error) => Err(error),
            }
        }
        "--version" | "-V" => COMMANDS[4].2(&arguments[1..]),
        "help" if arguments.len() > 1 => help_on(&arguments[1..], me),
        "help" | "--help" | "-h" => help(&operator::HELP, me),
        "" if is_plugin => help(&operator::HELP, me),
        word if word.starts_with('-') && is_plugin => Err(CliError::Usage("flags must follow the command".to_owned())),
        word if word.is_empty() || word.starts_with('-') => match wants_help(&arguments) {
            true => help(&operator::HELP, me),
            false => operator::main(arguments),
        },
        word => match COMMANDS.iter().find(|(name, _, _)| *name == word) {
            Some((name, text, _)) if wants_help(&arguments) => {
                topic = format!(" {name}");
                help(text, me)
            }
            Some((name, _, run)) => {
                topic = format!(" {name}");
                run(&arguments[1..])
            }
            None => Err(unknown(word)),
        },
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Some(message) = error.message() {
        let hint = if matches!(error, CliError::Usage(_)) { format!(" (see {me}{topic} --help)") } else { String::new() };
        eprintln!("{name}: {message}{hint}");
    }
    ExitCode::from(error.code())
}

fn wants_help(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--help" || argument == "-h")
}

fn help(help: &Help, me: &str) -> Result<(), CliError> {
    print(&help.text(me))
}

/// `help COMMAND`.
fn help_on(words: &[OsString], me: &str) -> Result<(), CliError> {
    let given = flag::Given::parse(&[], 1, words, &|_| None)?;
    match given.words.first().map_or("", String::as_str) {
        PERSIST_OUTPUT => help(&PERSIST_OUTPUT_HELP, me),
        word => match COMMANDS.iter().find(|(name, _, _)| *name == word) {
            Some((_, text, _)) => help(text, me),
            None => Err(unknown(word)),
        },
    }
}

fn unknown(word: &str) -> CliError {
    let names: Vec<&str> = COMMANDS.iter().map(|(name, _, _)| *name).collect();
    let hint = match names
        .iter()
        .find(|name| word.len() > 2 && (name.starts_with(&word.to_ascii_lowercase()) || name.get(..3) == word.get(..3)))
    {
        Some(near) => format!("did you mean {near}?"),
        None => format!("commands: {}, {PERSIST_OUTPUT}; without a command the operator runs", names.join(", ")),
    };
    CliError::Usage(format!("{:?} is not a command; {hint}", word.chars().take(60).collect::<String>()))
}

fn no_more(arguments: &[OsString]) -> Result<(), CliError> {
    flag::Given::parse(&[], 0, arguments, &|_| None).map(|_| ())
}
