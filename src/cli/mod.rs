//! The command line: one file a sub-command; flags and environment become a typed configuration.
//!
//! Exit codes: 0 done, 1 failed, 2 used wrongly, 3 a wait that took too long. Errors are one line on standard error.

mod convert;
mod crd;
mod flag;
mod flags;
mod manifest;
mod operator;
#[cfg(test)]
mod readme_tests;
mod render;
mod trigger;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use flag::Help;

/// A run that ended badly.
#[derive(Debug, PartialEq, Eq)]
pub enum CliError {
    /// The command line or the environment is wrong; exit code 2.
    Usage(String),
    /// It did not work; exit code 1.
    Failed(String),
    /// What was waited for did not come in time; exit code 3.
    TimedOut(String),
    /// All is said already; exit code 1.
    Said,
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Failed(message) | Self::TimedOut(message) => f.write_str(message),
            Self::Said => Ok(()),
        }
    }
}

/// What runs a command with the arguments after its name.
type Run = fn(&[OsString]) -> Result<(), CliError>;

/// Name, help and function of each command.
const COMMANDS: [(&str, Help, Run); 5] = [
    ("trigger", trigger::HELP, trigger::main),
    ("render", render::HELP, render::main),
    ("convert", convert::HELP, convert::main),
    ("crd", without_flags("Usage: {me} crd   print the custom resource definition\n"), |arguments| {
        no_more(arguments).and_then(|()| print(crd::MANIFEST))
    }),
    ("version", without_flags("Usage: {me} version   print the version\n"), |arguments| {
        no_more(arguments).and_then(|()| print(&format!("quarks-job {}\n", env!("CARGO_PKG_VERSION"))))
    }),
];

/// Its exit code is its own, so it has no row.
const PERSIST_OUTPUT: &str = "persist-output";
const PERSIST_OUTPUT_HELP: Help = without_flags(
    "\
Usage: quarks-job persist-output   store the output of the pod that it runs in as Secrets

The sidecar: container output-persist, which the operator adds to pods of QuarksJobs with spec.output. It takes no flags; what to
store comes in environment variables that the operator sets, and what became of it goes to the container's termination message.

Exit codes: 0 ended, data errors are in the termination message; 2 wrong usage; 143 stopped before all was stored.
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
        word if word.starts_with('-') && is_plugin => Err(CliError::Usage("flags come after the command".to_owned())),
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
    match error {
        CliError::Said => ExitCode::from(1),
        CliError::Usage(message) => {
            eprintln!("{name}: {} (see {me}{topic} --help)", crate::text::one_line(&message, 1_000));
            ExitCode::from(2)
        }
        CliError::Failed(message) => {
            eprintln!("{name}: {message}");
            ExitCode::from(1)
        }
        CliError::TimedOut(message) => {
            eprintln!("{name}: {message}");
            ExitCode::from(3)
        }
    }
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
        None => format!("commands are {}, {PERSIST_OUTPUT}, and none for the operator", names.join(", ")),
    };
    CliError::Usage(format!("{:?} is not a command; {hint}", word.chars().take(60).collect::<String>()))
}

fn no_more(arguments: &[OsString]) -> Result<(), CliError> {
    flag::Given::parse(&[], 0, arguments, &|_| None).map(|_| ())
}

/// A remark beside the output, on standard error.
fn remark(text: &str) {
    eprintln!("{}", crate::text::one_line(text, 1_000));
}

fn print(text: &str) -> Result<(), CliError> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough (`quarks-job crd | head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| CliError::Failed(format!("standard output: {error}"))),
    }
}
