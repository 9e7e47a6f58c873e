//! Newline framing of a byte stream, with a limit on a line's length. Pure: no I/O.

/// Bytes kept allocated between lines: a bookmark fits. What longer lines have needed is given back as soon as nothing is left over.
const KEEP_CAPACITY: usize = 1024;

/// A line is longer than the limit. The stream cannot be used further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTooLong;

/// Collects bytes and hands out whole lines. What follows the last newline is never handed out:
/// a line that was cut short must not be taken for a whole one.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Start of the first line not yet handed out.
    start: usize,
    /// Bytes before this offset hold no newline at or after `start`, so no byte is checked twice.
    searched: usize,
    limit: usize,
}

impl Lines {
    /// Lines of at most `limit` bytes, newline not counted.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, limit }
    }

    /// Adds bytes as they came, split anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line without its newline, if there is one. Blank lines are skipped.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, LineTooLong> {
        loop {
            let Some(offset) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                if self.start == self.buffer.len() && self.buffer.capacity() > KEEP_CAPACITY {
                    (self.buffer, self.start, self.searched) = (Vec::new(), 0, 0);
                }
                return if self.searched - self.start > self.limit { Err(LineTooLong) } else { Ok(None) };
            };
            let (start, end) = (self.start, self.searched + offset);
            self.start = end + 1;
            self.searched = self.start;
            if end - start > self.limit {
                return Err(LineTooLong);
            }
            if !self.buffer[start..end].trim_ascii().is_empty() {
                return Ok(Some(&self.buffer[start..end]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(lines: &mut Lines) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().expect("within the limit") {
            found.push(String::from_utf8(line.to_vec()).expect("text"));
        }
        found
    }

    #[test]
    fn lines_split_at_any_byte_come_out_whole() {
        let text = "one\n\n \r\ntwo, longer\nthree\nunfinished";
        for size in 1..=text.len() {
            let mut lines = Lines::new(100);
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece);
                found.extend(collect(&mut lines));
            }
            assert_eq!(found, ["one", "two, longer", "three"], "pieces of {size}");
        }
    }

    #[test]
    fn a_line_over_the_limit_is_refused_even_before_its_end() {
        for (text, refused) in [("12345\n", false), ("12345", false), ("123456", true), ("123456\n", true), ("1\n123456", true)] {
            let mut lines = Lines::new(5);
            lines.push(text.as_bytes());
            let mut result = lines.next_line().map(|line| line.map(<[u8]>::to_vec));
            while let Ok(Some(_)) = result {
                result = lines.next_line().map(|line| line.map(<[u8]>::to_vec));
            }
            assert_eq!(result.is_err(), refused, "{text:?}");
        }
    }

    #[test]
    fn memory_is_given_back_after_a_long_line() {
        let mut lines = Lines::new(1 << 20);
        lines.push(&vec![b'x'; 1 << 19]);
        lines.push(b"\n");
        assert!(lines.next_line().expect("within the limit").is_some());
        assert!(lines.next_line().expect("within the limit").is_none());
        assert!(lines.buffer.capacity() <= KEEP_CAPACITY, "at once: the next line may be hours away");
        lines.push(b"a\n");
        assert_eq!(collect(&mut lines), ["a"]);
    }
}
