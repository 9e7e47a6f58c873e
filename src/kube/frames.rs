//! The frames of a watch, as its body arrives: one reader for the operator's watches and for the sidecar's.

use std::io::{self, Read};

use crate::api::Resource;

use super::lines::{LineTooLong, Lines};
use super::objects::{Decode, Frame, parse_frame};

/// The body of a watch.
pub(crate) struct Frames {
    body: Box<dyn Read + Send>,
    lines: Lines,
    buffer: Vec<u8>,
    limit: usize,
}

impl Frames {
    /// Reads `piece` bytes at once; no frame may have more than `limit` bytes.
    pub(crate) fn new(body: Box<dyn Read + Send>, piece: usize, limit: usize) -> Self {
        Self { body, lines: Lines::new(limit), buffer: vec![0; piece], limit }
    }

    /// Waits for bytes. False: the server has ended the watch.
    pub(crate) fn read(&mut self) -> io::Result<bool> {
        loop {
            match self.body.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(amount) => {
                    self.lines.push(&self.buffer[..amount]);
                    return Ok(amount > 0);
                }
            }
        }
    }

    /// The next frame that is whole; `None`: more must be read. After an error the watch is of no use; it quotes nothing of an object.
    pub(crate) fn next<T>(&mut self, resource: Resource, decode: &Decode<T>) -> Result<Option<Frame<T>>, String> {
        match self.lines.next_line() {
            Ok(None) => Ok(None),
            Ok(Some(line)) => match parse_frame(line, resource, decode) {
                Ok(frame) => Ok(Some(frame)),
                Err(reason) => Err(format!("unexpected frame: {reason}")),
            },
            Err(LineTooLong) => Err(format!("frame longer than {} bytes", self.limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::scripted::{Chunk, Reply, Script};
    use crate::kube::{Client, ClientOptions, Request, config::Auth};
    use serde_json::{Value, json};
    use std::sync::Arc;
    use std::time::Duration;

    const LIMIT: usize = 100;

    /// All that comes of these pieces, in words.
    fn frames(pieces: impl IntoIterator<Item = Chunk>) -> String {
        let script = Script::new([Reply::chunks(200, pieces.into_iter().collect())]);
        let client = Client::with_transport(Arc::new(script), &Auth::None, ClientOptions::default());
        let request = Request::watch(Resource::JOBS, "ns", &"1".into(), 1);
        let mut frames = Frames::new(client.open(&request, Duration::from_secs(1)).expect("open"), 7, LIMIT);
        let decode: Decode<Value> = Box::new(|json| serde_json::from_slice::<Value>(json).map(Some));
        let mut words = Vec::new();
        loop {
            loop {
                match frames.next(Resource::JOBS, &decode) {
                    Ok(None) => break,
                    Ok(Some(Frame::Applied(object, _))) => words.push(object["n"].to_string()),
                    Ok(Some(other)) => words.push(format!("{other:?}")),
                    Err(reason) => return format!("{} {reason}", words.join(" ")),
                }
            }
            match frames.read() {
                Ok(true) => {}
                Ok(false) => words.push("end".to_owned()),
                Err(error) => words.push(error.kind().to_string()),
            }
            if words.last().is_some_and(|word| word.contains(|c: char| c.is_ascii_alphabetic())) {
                return words.join(" ");
            }
        }
    }

    fn line(number: u32) -> Chunk {
        Chunk::Bytes(format!("{}\n", json!({"type": "ADDED", "object": {"n": number}})).into_bytes())
    }

    #[test]
    fn frames_come_whole_and_in_order_until_the_body_ends() {
        let interrupted = || Chunk::Fail(io::ErrorKind::Interrupted);
        let text = |text: &str| Chunk::Bytes(text.as_bytes().to_vec());
        assert_eq!(frames([line(1), text("\n \r\n"), interrupted(), line(2)]), "1 2 end");
        assert_eq!(frames([line(1), text("{\"type\": \"ADD")]), "1 end", "half a frame is none");
        assert_eq!(frames([line(1), Chunk::Fail(io::ErrorKind::TimedOut), line(2)]), "1 timed out");
        assert_eq!(frames([line(1), text("canary\n"), line(2)]), "1 unexpected frame: expected value at line 1 column 1");
        assert_eq!(frames([line(1), Chunk::Bytes(vec![b'x'; LIMIT + 1]), line(2)]), "1 frame longer than 100 bytes");
    }
}
