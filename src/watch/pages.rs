//! One page of a list, read item by item.

use std::io::{self, Read};

use crate::api::{Resource, ResourceVersion};
use crate::kube::{Client, Error, Request};
use crate::text::one_line;

use super::frame::PageMeta;
use super::items::{Item, Items, NoList};

/// Bytes read at once.
const READ_BUFFER: usize = 8 * 1024;

/// Why a page did not come whole. What was handed out of it counts for nothing.
#[derive(Debug)]
pub(super) enum PageError {
    /// The call failed, or the answer is no list.
    Call(Error),
    /// The answer did not come in time, or not all of it: a smaller page may.
    Slow(Error),
}

impl PageError {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Call(error) | Self::Slow(error) => error,
        }
    }
}

/// What items are told with; `?` makes a [`PageError`] of it once the request is known.
#[derive(Debug)]
pub(super) enum Refused {
    /// The page is no list.
    NoList(String),
    /// The receiver of items has had enough.
    ByReceiver(Error),
}

impl From<NoList> for Refused {
    fn from(NoList(reason): NoList) -> Self {
        Self::NoList(reason)
    }
}

/// Reads the page that `request` asks for, at no time more than one item of at most `limit` bytes of it.
pub(super) fn read_page(
    client: &Client,
    request: &Request,
    limit: usize,
    each: &mut dyn FnMut(Item<'_>) -> Result<(), Error>,
) -> Result<(ResourceVersion, Option<String>), PageError> {
    let Request { verb, resource, .. } = *request;
    let mut body = client.open_page(request).map_err(|error| match error {
        Error::Transport { timed_out: true, sent: true, .. } => PageError::Slow(error),
        error => PageError::Call(error),
    })?;
    let refuse = |refused: Refused| {
        PageError::Call(match refused {
            Refused::NoList(reason) => no_list(verb, resource, &reason),
            Refused::ByReceiver(error) => error,
        })
    };
    let mut items = Items::new(limit);
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        let amount = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(amount) => amount,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let is_slow = error.kind() == io::ErrorKind::TimedOut;
                let error = client.read_error(verb, resource, &error);
                return Err(if is_slow { PageError::Slow(error) } else { PageError::Call(error) });
            }
        };
        items.push(&buffer[..amount], &mut |item| each(item).map_err(Refused::ByReceiver)).map_err(refuse)?;
    }
    let PageMeta { resource_version, token } = items.finish().map_err(|error| refuse(error.into()))?;
    Ok((resource_version, token.filter(|token| !token.is_empty())))
}

/// The answer is no list, or not all of one.
pub(super) fn no_list(verb: &'static str, resource: Resource, reason: &str) -> Error {
    Error::Decode { verb, resource, message: one_line(reason, 300), garbled: true }
}
