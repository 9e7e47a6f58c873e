//! A flag, defined once: how it is read from the command line and the environment, and what `--help` and `docs/operator.md` say about it.

use std::ffi::OsString;
use std::fmt::Write as _;

use lexopt::Arg;

use super::output::CliError;

/// Column where the help of a flag starts; a longer flag has its own line.
const COLUMN: usize = 38;

/// A flag of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flag {
    /// Without its dashes.
    pub name: &'static str,
    /// With one dash.
    pub short: Option<char>,
    /// What stands for its value. A switch has none, or `[=false]`: alone it means true.
    pub value: &'static str,
    /// Counts where the flag is not given; an empty variable is none.
    pub variable: &'static str,
    /// What applies if neither is given, in a word or two.
    pub default: &'static str,
    /// One line, or several. Without any it is in no help.
    pub about: &'static str,
}

impl Flag {
    /// Without a short form.
    pub const fn new(name: &'static str, value: &'static str, variable: &'static str, default: &'static str, about: &'static str) -> Self {
        Self { name, short: None, value, variable, default, about }
    }

    /// With a short form.
    pub const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    fn is_switch(&self) -> bool {
        self.value.is_empty() || self.value.starts_with('[')
    }

    /// As it is called: `--name VALUE`.
    pub fn call(&self) -> String {
        let space = if self.is_switch() { "" } else { " " };
        format!("--{}{space}{}", self.name, self.value)
    }
}

/// What `--help` prints; in head and tail `{me}` is how the program was called.
pub(super) struct Help {
    pub head: &'static str,
    pub flags: &'static [&'static [Flag]],
    pub tail: &'static str,
}

impl Help {
    /// The whole text.
    pub fn text(&self, me: &str) -> String {
        let mut text = self.head.replace("{me}", me);
        for flag in self.flags.iter().copied().flatten().filter(|flag| !flag.about.is_empty()) {
            let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
            let call = format!("  {short}{}", flag.call());
            let gap = if call.len() < COLUMN { "" } else { "\n" };
            // Writing to a String cannot fail.
            let _ = write!(text, "{call}{gap}{:width$}", "", width = if gap.is_empty() { COLUMN - call.len() } else { COLUMN });
            if !flag.variable.is_empty() {
                let _ = write!(text, "[{}] ", flag.variable);
            }
            text.push_str(&flag.about.replace('\n', &format!("\n{:COLUMN$}", "")));
            if !flag.default.is_empty() {
                let _ = write!(text, " ({})", flag.default);
            }
            text.push('\n');
        }
        text + self.tail
    }
}

/// Where a value comes from, as named in messages, and the value.
pub(super) type Sourced = (String, String);

/// What was given.
pub(super) struct Given {
    flags: Vec<(Flag, Option<Sourced>)>,
    /// Arguments that are not flags.
    pub words: Vec<String>,
}

impl Given {
    /// Reads the command line, with at most so many words beside flags; `variable` reads the environment.
    pub fn parse(
        flags: &[&[Flag]],
        words_max: usize,
        arguments: &[OsString],
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, CliError> {
        let mut flags: Vec<(Flag, Option<Sourced>)> = flags.iter().copied().flatten().map(|flag| (*flag, None)).collect();
        let mut words = Vec::new();
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(usage)? {
            let known = match &argument {
                Arg::Long(long) => flags.iter_mut().find(|(flag, _)| flag.name == *long),
                Arg::Short(short) => flags.iter_mut().find(|(flag, _)| flag.short == Some(*short)),
                Arg::Value(word) if words.len() < words_max => {
                    words.push(text(word.clone(), "an argument")?);
                    continue;
                }
                Arg::Value(_) => None,
            };
            let Some((flag, given)) = known else { return Err(usage(argument.unexpected())) };
            // Switches: `--apply-crd` alone means true.
            let value = if flag.is_switch() { Some(parser.optional_value().unwrap_or_else(|| "true".into())) } else { None };
            let value = match value {
                Some(value) => value,
                None => parser.value().map_err(usage)?,
            };
            let source = format!("--{}", flag.name);
            *given = Some((source.clone(), text(value, &source)?));
        }
        for (flag, given) in flags.iter_mut().filter(|(flag, given)| given.is_none() && !flag.variable.is_empty()) {
            if let Some(value) = variable(flag.variable).filter(|value| !value.is_empty()) {
                *given = Some((flag.variable.to_owned(), text(value, flag.variable)?));
            }
        }
        Ok(Self { flags, words })
    }

    /// Source and value of a flag.
    pub fn find(&self, name: &str) -> Option<&Sourced> {
        self.flags.iter().find(|(flag, _)| flag.name == name).expect("a flag of the command").1.as_ref()
    }

    /// Its value.
    pub fn value(&self, name: &str) -> Option<String> {
        self.find(name).map(|(_, value)| value.clone())
    }
}

fn usage(error: lexopt::Error) -> CliError {
    CliError::Usage(error.to_string())
}

fn text(value: OsString, source: &str) -> Result<String, CliError> {
    value.into_string().map_err(|_| CliError::Usage(format!("{source}: not valid UTF-8")))
}
