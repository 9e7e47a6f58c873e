//! Reads an output file, which was written by an untrusted container.
//!
//! Promises: opened once, never through a symbolic link, never blocking on a FIFO, regular files only, at most [`FILE_LIMIT`] bytes
//! in memory however the file grows. Not for its content.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::{fmt, fs};

/// Largest file that is read, in bytes. A Secret takes 1 MiB of values; JSON escapes (`\n`, `\u0001`), documents appended by
/// restarts and the several Secrets of a fan-out make the file larger than that. 4 MiB, times six at the peak, stays within the
/// sidecar's memory limit of 32 MiB.
pub const FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// Why a file cannot be read. `Display` follows the words `container C, file F: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// It does not exist.
    Missing,
    /// No plain file name.
    Name,
    /// Something else than a regular file.
    NotRegular(&'static str),
    /// The sidecar's user may not read it.
    Denied {
        /// True if it is the folder that is closed.
        folder: bool,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
    },
    /// Longer than [`FILE_LIMIT`].
    TooLarge,
    /// The system's word.
    Io(io::ErrorKind),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the container exited without writing it"),
            Self::Name => f.write_str("not a valid file name"),
            Self::NotRegular(what) => write!(f, "must be a regular file, not {what}"),
            Self::Denied { folder, mode, uid } => {
                let what = if *folder { "the output directory" } else { "the file" };
                write!(f, "no permission to read {what} (mode {mode:04o}, owner {uid}); make it readable for all users")?;
                // The pod, not one container: the sidecar may run as the user of another container. Never advise to run as root.
                if *uid == 0 { Ok(()) } else { write!(f, ", or run the whole pod as its owner (runAsUser: {uid})") }
            }
            Self::TooLarge => write!(f, "larger than {} MiB", FILE_LIMIT / (1024 * 1024)),
            Self::Io(kind) => write!(f, "cannot be read: {kind}"),
        }
    }
}

impl std::error::Error for FileError {}

/// Reads `<root>/<container>/<file>`.
pub fn read(root: &Path, container: &str, file: &str) -> Result<Vec<u8>, FileError> {
    if !is_plain(container) || !is_plain(file) {
        return Err(FileError::Name);
    }
    let folder = root.join(container);
    let path = folder.join(file);
    // The folder is a mount point, which a container cannot replace; looking costs nothing.
    let about = fs::symlink_metadata(&folder).map_err(|error| from_io(&error, None))?;
    if !about.is_dir() {
        return Err(FileError::NotRegular("one below a non-directory"));
    }
    let about = fs::symlink_metadata(&path).map_err(|error| from_io(&error, Some((true, &about))))?;
    check_kind(&about)?;
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY).open(&path);
    let opened = opened.map_err(|error| from_io(&error, Some((false, &about))))?;
    read_opened(opened)
}

/// True if the file exists, whatever it is.
pub fn is_there(root: &Path, container: &str, file: &str) -> bool {
    is_plain(container) && is_plain(file) && fs::symlink_metadata(root.join(container).join(file)).is_ok()
}

fn read_opened(file: File) -> Result<Vec<u8>, FileError> {
    // Looked at again: between the look and the opening it may have been replaced.
    let about = file.metadata().map_err(|error| FileError::Io(error.kind()))?;
    check_kind(&about)?;
    if about.len() > FILE_LIMIT {
        return Err(FileError::TooLarge);
    }
    // One byte more, so that the end is seen without growing the buffer.
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).map_or(0, |length| length + 1));
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(|error| FileError::Io(error.kind()))?;
    if bytes.len() as u64 > FILE_LIMIT { Err(FileError::TooLarge) } else { Ok(bytes) }
}

fn check_kind(about: &Metadata) -> Result<(), FileError> {
    let kind = about.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(FileError::NotRegular(what))
}

fn from_io(error: &io::Error, about: Option<(bool, &Metadata)>) -> FileError {
    match (error.kind(), about) {
        (io::ErrorKind::NotFound, _) => FileError::Missing,
        (io::ErrorKind::PermissionDenied, Some((folder, about))) => {
            FileError::Denied { folder, mode: about.permissions().mode() & 0o7777, uid: about.uid() }
        }
        _ if error.raw_os_error() == Some(libc::ELOOP) => FileError::NotRegular("a symbolic link"),
        (kind, _) => FileError::Io(kind),
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
