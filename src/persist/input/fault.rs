//! Why a file or log is not stored, and the message about it.

use std::fmt;

use crate::contract::report::OutputErrorReason;

use super::document::DocumentError;
use super::files::FileError;

/// Why a file's content cannot be stored.
#[derive(Debug)]
pub enum Fault {
    /// It cannot be read.
    File(FileError),
    /// Its content is wrong.
    Document(DocumentError),
    /// The content of a log is wrong.
    Log(DocumentError),
    /// A log is larger than a file may be.
    LogTooLarge,
    /// Name, labels or annotations of its Secret break a rule.
    Rule(String),
    /// The name of its Secret belongs to something else, whether that exists or not.
    Taken(String),
}

impl Fault {
    /// The reason, for programs.
    pub fn reason(&self) -> OutputErrorReason {
        if let Self::Taken(_) = self { OutputErrorReason::OutputConflict } else { OutputErrorReason::OutputInvalid }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Document(error) => error.fmt(f),
            // Whoever reads this may not have thought of what else the container prints.
            Self::Log(error) => {
                match error {
                    DocumentError::Trailing { line, column, documents: _ } => {
                        write!(f, "log: trailing data at line {line} column {column}")?;
                    }
                    error => write!(f, "log: {error}")?,
                }
                f.write_str("; with namePrefix a container must print one JSON object and nothing else")
            }
            Self::LogTooLarge => write!(f, "log: {}", FileError::TooLarge),
            Self::Rule(text) | Self::Taken(text) => f.write_str(text),
        }
    }
}
