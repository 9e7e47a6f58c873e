//! HTTP/1.1 messages of the test server: reading a request, writing a reply, what a backend answers.
//! Not a general server: no pipelining, no `Expect: 100-continue`, no trailers.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use serde_json::{Value, json};

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// As it came, with the query: what a proxy forwards.
    pub target: String,
    pub path: String,
    /// Percent-decoded; of a repeated name the last value.
    pub query: BTreeMap<String, String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    pub fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub fn is_mutation(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS")
    }

    pub fn is_watch(&self) -> bool {
        self.method == "GET" && matches!(self.parameter("watch"), "true" | "1")
    }

    /// The body as JSON; `Null` when there is none or it does not parse.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(status: u16, value: &Value) -> Response {
        Response::new(status, "application/json", value.to_string().into_bytes())
    }

    pub fn new(status: u16, content_type: &str, body: Vec<u8>) -> Response {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Response { status, headers, body }
    }

    /// A `Status` of kind Failure as the API server words it.
    pub fn failure(code: u16, reason: &str, message: &str, details: Value) -> Response {
        Response::json(code, &status_failure(code, reason, message, details))
    }

    pub fn with_header(mut self, name: &str, value: &str) -> Response {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

pub fn status_failure(code: u16, reason: &str, message: &str, details: Value) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    if !details.is_null() {
        status["details"] = details;
    }
    status
}

/// What answers requests: the in-memory API or a real one behind the proxy.
pub trait Backend: Send + Sync {
    fn call(&self, request: &Request) -> Reply;
    /// Who sent it, for the record.
    fn user(&self, request: &Request) -> String;
}

pub enum Reply {
    Full(Response),
    /// The head, then frames for as long as there are any.
    Stream(Response, Box<dyn Frames>),
}

impl Reply {
    pub fn status(&self) -> u16 {
        match self {
            Reply::Full(response) | Reply::Stream(response, _) => response.status,
        }
    }
}

/// Source of watch frames, each a line with its newline.
pub trait Frames: Send {
    /// Waits at most `wait`.
    fn next(&mut self, wait: Duration) -> Next;
}

pub enum Next {
    Frame(Vec<u8>),
    Idle,
    End,
}

/// Reads one request; `buffer` holds what came after it. `None`: the peer closed between requests.
pub fn read_request(input: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let head_length = loop {
        if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if !fill(input, buffer)? {
            return Ok(None);
        }
    };
    let mut request = parse_head(&buffer[..head_length])?;
    buffer.drain(..head_length);
    if request.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
        request.body = read_chunked(input, buffer)?;
    } else {
        let length = request.header("content-length").parse().unwrap_or(0);
        request.body = take(input, buffer, length)?;
    }
    Ok(Some(request))
}

fn parse_head(head: &[u8]) -> io::Result<Request> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(head).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    let target = parsed.path.unwrap_or("/").to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    Ok(Request {
        method: parsed.method.unwrap_or("").to_owned(),
        path: decode(path),
        query: pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (decode(name), decode(&value.replace('+', " "))))
            .collect(),
        headers: parsed
            .headers
            .iter()
            .map(|header| {
                let value = String::from_utf8_lossy(header.value).into_owned();
                (header.name.to_owned(), value)
            })
            .collect(),
        body: Vec::new(),
        target,
    })
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let pair = [bytes.next().unwrap_or(0), bytes.next().unwrap_or(0)];
        let hex = std::str::from_utf8(&pair).unwrap_or("");
        out.push(u8::from_str_radix(hex, 16).unwrap_or(b'?'));
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn read_chunked(input: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_length = loop {
            if let Some(at) = buffer.windows(2).position(|bytes| bytes == b"\r\n") {
                break at + 2;
            }
            if !fill(input, buffer)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        };
        let line: Vec<u8> = buffer.drain(..line_length).collect();
        let digits = String::from_utf8_lossy(&line);
        let digits = digits.split(';').next().unwrap_or("").trim();
        let size = usize::from_str_radix(digits, 16).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        body.extend(take(input, buffer, size)?);
        take(input, buffer, 2)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn take(input: &mut impl Read, buffer: &mut Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    while buffer.len() < length {
        if !fill(input, buffer)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.drain(..length).collect())
}

fn fill(input: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = [0; 16 * 1024];
    let count = input.read(&mut piece)?;
    buffer.extend_from_slice(&piece[..count]);
    Ok(count > 0)
}

/// Writes head and body; with `half` the promised length is never kept.
pub fn write_full(out: &mut impl Write, response: &Response, half: bool) -> io::Result<()> {
    let mut message = head(response);
    message.extend(format!("Content-Length: {}\r\n\r\n", response.body.len()).bytes());
    let end = response.body.len() / if half { 2 } else { 1 };
    message.extend_from_slice(&response.body[..end]);
    out.write_all(&message)?;
    out.flush()
}

pub fn write_stream_head(out: &mut impl Write, response: &Response) -> io::Result<()> {
    let mut message = head(response);
    message.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    out.write_all(&message)?;
    out.flush()
}

/// An empty `data` is the last chunk.
pub fn write_chunk(out: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let mut message = format!("{:x}\r\n", data.len()).into_bytes();
    message.extend_from_slice(data);
    message.extend_from_slice(b"\r\n");
    out.write_all(&message)?;
    out.flush()
}

fn head(response: &Response) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {} Scripted\r\n", response.status);
    for (name, value) in &response.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.into_bytes()
}
