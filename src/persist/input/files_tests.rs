//! Hostile files. Each test has a folder of its own.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use super::*;

struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quarks-files-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("main")).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("main/output.json")
    }

    fn read(&self) -> Result<Vec<u8>, FileError> {
        read(&self.0, "main", "output.json")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_regular_file_is_read() {
    let root = Root::new("regular");
    assert_eq!(root.read(), Err(FileError::Missing));
    assert!(!is_there(&root.0, "main", "output.json"));
    fs::write(root.file(), "{}").unwrap();
    assert_eq!(root.read().as_deref(), Ok(&b"{}"[..]));
    assert!(is_there(&root.0, "main", "output.json"));
    assert_eq!(read(&root.0, "other", "output.json"), Err(FileError::Missing));
}

#[test]
fn links_are_never_followed() {
    let root = Root::new("links");
    fs::write(root.0.join("secret"), "{}").unwrap();
    symlink(root.0.join("secret"), root.file()).unwrap();
    assert_eq!(root.read(), Err(FileError::NotRegular("a symbolic link")));
    symlink(root.0.join("main"), root.0.join("linked")).unwrap();
    fs::write(root.0.join("main/f"), "{}").unwrap();
    assert_eq!(read(&root.0, "linked", "f"), Err(FileError::NotRegular("one below a non-directory")));
}

#[test]
fn a_link_put_in_place_after_the_look_is_not_followed() {
    let root = Root::new("late-link");
    symlink("/etc/passwd", root.file()).unwrap();
    let error = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(root.file()).unwrap_err();
    assert_eq!(from_io(&error, None), FileError::NotRegular("a symbolic link"));
}

#[test]
fn what_is_no_file_is_named() {
    let root = Root::new("kinds");
    fs::create_dir(root.file()).unwrap();
    assert_eq!(root.read(), Err(FileError::NotRegular("a directory")));
    fs::remove_dir(root.file()).unwrap();
    assert!(Command::new("mkfifo").arg(root.file()).status().unwrap().success());
    assert_eq!(root.read(), Err(FileError::NotRegular("a FIFO")));
    // Opened all the same, it must not block.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(root.file()).unwrap();
    assert_eq!(read_opened(opened), Err(FileError::NotRegular("a FIFO")));
    fs::remove_file(root.file()).unwrap();
    let _socket = UnixListener::bind(root.file()).unwrap();
    assert_eq!(root.read(), Err(FileError::NotRegular("a socket")));
    assert_eq!(read(Path::new("/"), "dev", "null"), Err(FileError::NotRegular("a device")));
}

#[test]
fn large_files_are_refused_without_reading_them() {
    let root = Root::new("large");
    let file = File::create(root.file()).unwrap();
    file.set_len(FILE_LIMIT).unwrap();
    assert_eq!(root.read().unwrap().len() as u64, FILE_LIMIT);
    file.set_len(1 << 40).unwrap();
    assert_eq!(root.read(), Err(FileError::TooLarge));
}

#[test]
fn only_plain_names() {
    let root = Root::new("names");
    for name in ["", ".", "..", "../main/output.json", "a/b", "/etc/passwd", "a\0b"] {
        assert_eq!(read(&root.0, "main", name), Err(FileError::Name), "{name}");
        assert_eq!(read(&root.0, name, "output.json"), Err(FileError::Name), "{name}");
    }
}

#[test]
fn a_closed_file_tells_the_remedy() {
    let root = Root::new("denied");
    fs::write(root.file(), "{}").unwrap();
    let about = fs::symlink_metadata(root.file()).unwrap();
    let error = from_io(&io::Error::from(io::ErrorKind::PermissionDenied), Some((false, &about)));
    let FileError::Denied { folder: false, mode, uid } = error else { panic!("{error}") };
    assert_eq!(uid, about.uid());
    assert_eq!(
        FileError::Denied { folder: false, mode: 0o600, uid: 1000 }.to_string(),
        "no permission to read the file (mode 0600, owner 1000); make it readable for all users, or run the whole pod as its owner (runAsUser: 1000)"
    );
    assert!(mode & 0o400 != 0);
}
