//! Lists: one page, read item by item; or a whole list, once, page by page, when nothing is watched afterwards.
//!
//! One pager for all: [`Cursor`] says which page comes next, also in a watch. What happens to an object is up to the caller.

use std::io::{self, Read};

use crate::api::{Resource, ResourceVersion};
use crate::text::{describe_decode, one_line};

use super::client::Client;
use super::error::{Error, Result};
use super::items::{Item, Items, NoList, PageMeta};
use super::request::Request;

/// Longest object in bytes. The API server stores at most 1.5 MiB; JSON escapes can make it longer.
const OBJECT_MAX: usize = 8 * 1024 * 1024;
/// Objects in one page of a list for once: what comes in the time for a call, also where objects are large.
const PAGE: u32 = 100;
/// Bytes read at once.
const READ_BUFFER: usize = 8 * 1024;

/// Which page of a list to ask for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cursor {
    /// Objects in the page; `None` for all.
    pub(crate) limit: Option<u32>,
    /// `None` for the first page: what was collected before is void.
    pub(crate) token: Option<String>,
}

impl Cursor {
    /// The first page, of at least one object.
    pub(crate) fn first(limit: u32) -> Self {
        Self { limit: Some(limit.max(1)), token: None }
    }

    /// The page after this one.
    pub(crate) fn next(&self, token: String) -> Self {
        Self { token: Some(token), ..*self }
    }

    /// After a 410. If a page token has expired the list took too long in pages, so the next one comes whole, and with it there is no
    /// token that could expire again. `None`: it did come whole, or its first page was refused.
    pub(crate) fn after_expiry(&self) -> Option<Self> {
        (self.limit.is_some() && self.token.is_some()).then_some(Self { limit: None, token: None })
    }

    fn of(&self, mut request: Request) -> Request {
        if let Some(limit) = self.limit {
            request = request.limit(limit);
        }
        match &self.token {
            Some(token) => request.continue_token(token),
            None => request,
        }
    }
}

/// Why a page did not come whole. What was handed out of it counts for nothing.
#[derive(Debug)]
pub(crate) enum PageError {
    /// The call failed, or the answer is not a list.
    Call(Error),
    /// The answer did not come in time, or not all of it: a smaller page may.
    Slow(Error),
}

impl PageError {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Call(error) | Self::Slow(error) => error,
        }
    }
}

/// The error while items are read; `?` turns it into a [`PageError`] once the request is known.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The page is not a list.
    NoList(String),
    /// The receiver of items has had enough.
    ByReceiver(Error),
}

impl From<NoList> for Refused {
    fn from(NoList(reason): NoList) -> Self {
        Self::NoList(reason)
    }
}

/// Reads a page of the list that `request` names, at no time more than one item of at most `limit` bytes of it. Returns the list's version
/// and the token of the next page.
pub(crate) fn read_page(
    client: &Client,
    request: Request,
    cursor: &Cursor,
    limit: usize,
    each: &mut dyn FnMut(Item<'_>) -> Result<()>,
) -> std::result::Result<(ResourceVersion, Option<String>), PageError> {
    let request = cursor.of(request);
    let Request { verb, resource, .. } = request;
    let mut body = client.open_page(&request).map_err(|error| match error {
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

/// The answer is not a list, or not all of one.
pub(crate) fn no_list(verb: &'static str, resource: Resource, reason: &str) -> Error {
    Error::Decode { verb, resource, message: one_line(reason, 300), garbled: true }
}

/// What `list_all` reports.
#[derive(Clone, Copy, Debug)]
pub enum Listed<'a> {
    /// A list starts. What came before does not count: a page of it has expired.
    Begin,
    /// The JSON of an object.
    Object(&'a [u8]),
}

/// Reports every object of the list that `request` names, one after the other as they arrive. An object that `tell` cannot decode
/// ends it.
pub fn list_all(client: &Client, request: Request, tell: &mut dyn FnMut(Listed<'_>) -> serde_json::Result<()>) -> Result<()> {
    let Request { verb, resource, .. } = request;
    let undecodable = |error: serde_json::Error| {
        let (message, garbled) = (one_line(&describe_decode(&error), 300), !error.is_data());
        Error::Decode { verb, resource, message, garbled }
    };
    let mut cursor = Cursor::first(PAGE);
    tell(Listed::Begin).map_err(undecodable)?;
    loop {
        let page = read_page(client, request.clone(), &cursor, OBJECT_MAX, &mut |item| match item {
            Item::Json(json) => tell(Listed::Object(json)).map_err(undecodable),
            Item::TooLong => Err(Error::TooLarge { verb, resource, limit: OBJECT_MAX }),
        });
        match page.map_err(PageError::into_error) {
            Ok((_, None)) => return Ok(()),
            Ok((_, Some(token))) => cursor = cursor.next(token),
            Err(error) => {
                cursor = cursor.after_expiry().filter(|_| error.is_gone()).ok_or(error)?;
                tell(Listed::Begin).map_err(undecodable)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Job, Resource};
    use crate::kube::ClientOptions;
    use crate::kube::config::Auth;
    use crate::kube::scripted::{Reply, Script};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn page(items: Value, next: Value) -> Reply {
        Reply::json(200, &json!({"metadata": {"resourceVersion": "1", "continue": next}, "items": items}))
    }

    fn named(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    fn expired() -> Reply {
        Reply::json(410, &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}))
    }

    /// Names in the list, and the queries that it took.
    fn list(replies: impl IntoIterator<Item = Reply>) -> (Result<String>, Vec<String>) {
        let script = Script::new(replies);
        let client = Client::with_transport(Arc::new(script.clone()), &Auth::None, ClientOptions::default());
        let mut names = Vec::new();
        let result = list_all(&client, Request::list(Resource::JOBS, "ns"), &mut |listed| {
            match listed {
                Listed::Begin => names.clear(),
                Listed::Object(json) => names.push(serde_json::from_slice::<Job>(json)?.metadata.name),
            }
            Ok(())
        });
        let query = |path: &str| path.rsplit_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default();
        (result.map(|()| names.join(" ")), script.seen().iter().map(|seen| query(&seen.path_and_query)).collect())
    }

    #[test]
    fn pages_are_followed_to_the_last() {
        let (names, queries) = list([
            page(json!([named("a"), named("b")]), json!("t1")),
            page(json!([named("c")]), json!("t2")),
            page(json!(null), json!("")),
        ]);
        assert_eq!(names.expect("a list"), "a b c");
        assert_eq!(queries, ["limit=100", "limit=100&continue=t1", "limit=100&continue=t2"]);
        assert_eq!(list([page(json!([]), Value::Null)]).0.expect("a list"), "");
    }

    #[test]
    fn an_expired_page_means_a_fresh_list_in_one_piece_and_only_once() {
        let (names, queries) = list([page(json!([named("a")]), json!("t1")), expired(), page(json!([named("b")]), json!(""))]);
        assert_eq!(names.expect("a list"), "b");
        assert_eq!(queries, ["limit=100", "limit=100&continue=t1", ""]);
        let (names, queries) = list((0..4).flat_map(|_| [page(json!([named("a")]), json!("t")), expired()]));
        assert!(names.expect_err("ends").is_gone());
        assert_eq!(queries, ["limit=100", "limit=100&continue=t", "", "continue=t"], "also if it has pages all the same");
        let (names, queries) = list([expired()]);
        assert!(names.expect_err("ends").is_gone());
        assert_eq!(queries, ["limit=100"]);
    }

    #[test]
    fn half_a_list_is_an_error() {
        for (second, is_transient) in [
            (Reply::text(200, "{\"items\": [{"), true),
            (Reply::text(200, "{}"), true),
            (Reply::json(200, &json!({"status": "ok"})), true),
            (Reply::json(200, &json!({"metadata": {}, "items": []})), true),
            (page(json!([{"metadata": {"name": 4711}}]), json!("")), false),
            (Reply::json(500, &json!({})), true),
        ] {
            let error = list([page(json!([named("a")]), json!("t")), second]).0.expect_err("an error");
            assert_eq!(error.is_transient(), is_transient, "{error}");
            assert!(!error.to_string().contains("4711"), "{error}");
        }
    }
}
