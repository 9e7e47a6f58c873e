//! Reads the diagrams of the pages: a small part of Mermaid, strictly, so that a viewer draws what was meant.
//!
//! Known: `flowchart`, `sequenceDiagram` and `stateDiagram-v2` with what the pages use of them. Anything else is an error that says where.

use std::collections::BTreeMap;

use crate::pages::{Page, blocks};
use crate::{all_pages, assert_none};

/// Words that start or end something in the language, so they are not names.
const RESERVED: [&str; 12] =
    ["end", "subgraph", "graph", "flowchart", "direction", "state", "note", "participant", "actor", "loop", "default", "class"];
const DIRECTIONS: [&str; 5] = ["LR", "RL", "TB", "TD", "BT"];
/// A longer one stands before one that it starts with.
const ARROWS: [&str; 8] = ["-->>", "->>", "--x", "-x", "--)", "-)", "-->", "->"];
const EDGES: [&str; 6] = ["<-->", "-.->", "-->", "---", "-.-", "==>"];
const SHAPES: [(&str, &str); 7] = [("((", "))"), ("([", "])"), ("[(", ")]"), ("{{", "}}"), ("[", "]"), ("(", ")"), ("{", "}")];
/// What encloses messages, and what divides such a part.
const FRAMES: [&str; 6] = ["loop", "alt", "opt", "par", "critical", "break"];
const DIVIDERS: [(&str, &str); 3] = [("alt", "else"), ("par", "and"), ("critical", "option")];

type Outcome = Result<(), String>;

/// What is left of a line.
struct Line<'a>(&'a str);

impl<'a> Line<'a> {
    fn take(&mut self, what: &str) -> bool {
        let rest = self.0.trim_start().strip_prefix(what);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn take_any(&mut self, options: &[&'static str]) -> Option<&'static str> {
        options.iter().copied().find(|option| self.take(option))
    }

    /// A word of the language, which ends where the word ends.
    fn take_word(&mut self, word: &str) -> bool {
        let mut after = Line(self.0);
        let is_word = after.take(word) && !after.0.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_');
        self.0 = if is_word { after.0 } else { self.0 };
        is_word
    }

    fn name(&mut self) -> Result<&'a str, String> {
        let rest = self.0.trim_start();
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() || RESERVED.contains(&name) {
            return Err(format!("expected a name at {rest:?}"));
        }
        self.0 = after;
        Ok(name)
    }

    fn expect(&mut self, what: &str) -> Outcome {
        if self.take(what) { Ok(()) } else { Err(format!("expected {what:?} at {:?}", self.0)) }
    }

    fn up_to(&mut self, what: &str) -> Result<&'a str, String> {
        let (before, after) = self.0.split_once(what).ok_or_else(|| format!("no {what:?} after {:?}", self.0))?;
        self.0 = after;
        Ok(before.trim())
    }

    fn end(&self) -> Outcome {
        if self.0.trim().is_empty() { Ok(()) } else { Err(format!("did not expect {:?}", self.0.trim())) }
    }
}

/// Text that is drawn. Without quotes only what no part of the language can be.
fn check_text(text: &str) -> Outcome {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let is_plain = |letter: char| letter.is_alphanumeric() || " -_.,:/'+=*?!".contains(letter);
    let is_right = match inner {
        Some(inner) => !inner.trim().is_empty() && !inner.contains(['"', ';', '#']),
        None => !text.trim().is_empty() && text.chars().all(is_plain),
    };
    if !is_right {
        return Err(format!("{text:?} must be in quotes, or has a character that cannot be drawn, or nothing"));
    }
    if inner.is_none() && text.split_whitespace().any(|word| word == "end") {
        return Err(format!("the word \"end\" in {text:?} can end the diagram: use another word"));
    }
    Ok(())
}

/// What of a name has been seen.
#[derive(Default)]
struct Seen {
    line: usize,
    text: Option<String>,
    is_declared: bool,
    is_used: bool,
}

#[derive(Default)]
struct Diagram {
    names: BTreeMap<String, Seen>,
    /// What is open, innermost last, with its line.
    open: Vec<(String, usize)>,
    line: usize,
    in_note: bool,
}

impl Diagram {
    fn seen(&mut self, name: &str) -> &mut Seen {
        let line = self.line;
        self.names.entry(name.to_owned()).or_insert_with(|| Seen { line, ..Seen::default() })
    }

    fn declare(&mut self, name: &str, text: Option<&str>) -> Outcome {
        text.map_or(Ok(()), check_text)?;
        let seen = self.seen(name);
        if seen.is_declared {
            return Err(format!("{name} is declared twice"));
        }
        seen.is_declared = true;
        seen.text = text.map(str::to_owned);
        Ok(())
    }

    fn close(&mut self) -> Result<String, String> {
        self.open.pop().map(|(what, _)| what).ok_or_else(|| "an end without a start".to_owned())
    }

    // ---------------------------------------------------------------------------------------------- flowchart

    fn flowchart(&mut self, line: &mut Line) -> Outcome {
        if line.take_word("end") {
            self.close()?;
        } else if line.take_word("subgraph") {
            let name = line.name()?;
            if line.take("[") {
                check_text(line.up_to("]")?)?;
            }
            self.open.push((format!("subgraph {name}"), self.line));
            self.seen(name).is_declared = true;
        } else if line.take_word("direction") {
            return direction(line);
        } else {
            let mut from = self.nodes(line)?;
            while !line.0.trim().is_empty() {
                edge(line)?;
                let to = self.nodes(line)?;
                from.iter().chain(&to).for_each(|name| self.seen(name).is_used = true);
                from = to;
            }
        }
        line.end()
    }

    /// One node, or several with `&` between them.
    fn nodes(&mut self, line: &mut Line) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        loop {
            let name = line.name()?;
            self.seen(name);
            if let Some((_, close)) = SHAPES.into_iter().find(|(open, _)| line.take(open)) {
                self.declare(name, Some(line.up_to(close)?))?;
            }
            names.push(name.to_owned());
            if !line.take("&") {
                return Ok(names);
            }
        }
    }

    // ----------------------------------------------------------------------------------------------- sequence

    fn sequence(&mut self, line: &mut Line) -> Outcome {
        if line.take_word("end") {
            self.close()?;
        } else if line.take_word("participant") || line.take_word("actor") {
            let name = line.name()?;
            let text = line.take_word("as").then(|| std::mem::take(&mut line.0).trim());
            self.declare(name, text)?;
        } else if line.take_word("note") || line.take_word("Note") {
            let is_over = line.take_word("over");
            if !is_over && !((line.take_word("left") || line.take_word("right")) && line.take_word("of")) {
                return Err("a note is over, left of or right of somebody".to_owned());
            }
            self.use_name(line)?;
            if is_over && line.take(",") {
                self.use_name(line)?;
            }
            return said(line);
        } else if line.take_word("activate") || line.take_word("deactivate") {
            self.use_name(line)?;
        } else if let Some(frame) = FRAMES.iter().find(|frame| line.take_word(frame)) {
            check_text(line.0.trim())?;
            line.0 = "";
            self.open.push(((*frame).to_owned(), self.line));
        } else if let Some((frame, divider)) = DIVIDERS.iter().find(|(_, divider)| line.take_word(divider)) {
            line.0 = "";
            if self.open.last().is_none_or(|(open, _)| open != frame) {
                return Err(format!("{divider:?} outside of {frame:?}"));
            }
        } else if !line.take_word("autonumber") {
            return self.message(line);
        }
        line.end()
    }

    fn message(&mut self, line: &mut Line) -> Outcome {
        self.use_name(line)?;
        line.take_any(&ARROWS).ok_or_else(|| format!("expected an arrow at {:?}", line.0))?;
        let _ = line.take("+") || line.take("-");
        self.use_name(line)?;
        said(line)
    }

    /// A name that has to be declared before.
    fn use_name(&mut self, line: &mut Line) -> Outcome {
        let name = line.name()?;
        let seen = self.seen(name);
        seen.is_used = true;
        if seen.is_declared { Ok(()) } else { Err(format!("{name} is not declared")) }
    }

    // ------------------------------------------------------------------------------------------------- states

    fn states(&mut self, line: &mut Line) -> Outcome {
        if self.in_note {
            self.in_note = line.0.trim() != "end note";
            return if self.in_note { check_text(line.0.trim()) } else { Ok(()) };
        }
        if line.take("}") {
            self.close()?;
        } else if line.take_word("direction") {
            return direction(line);
        } else if line.take_word("state") {
            if line.take("\"") {
                let text = line.up_to("\"")?;
                line.expect("as")?;
                let name = line.name()?;
                self.declare(name, Some(&format!("\"{text}\"")))?;
            } else {
                let name = line.name()?;
                self.declare(name, None)?;
            }
            if line.take("{") {
                self.open.push(("state".to_owned(), self.line));
            } else if line.take("<<") && !["choice", "fork", "join"].contains(&line.up_to(">>")?) {
                return Err("a state can be <<choice>>, <<fork>> or <<join>>".to_owned());
            }
        } else if line.take_word("note") {
            if !((line.take_word("left") || line.take_word("right")) && line.take_word("of")) {
                return Err("a note is left of or right of a state".to_owned());
            }
            let name = line.name()?;
            self.seen(name);
            self.in_note = line.0.trim().is_empty();
            return if self.in_note { Ok(()) } else { said(line) };
        } else {
            return self.transition(line);
        }
        line.end()
    }

    fn transition(&mut self, line: &mut Line) -> Outcome {
        self.state(line)?;
        line.expect("-->")?;
        self.state(line)?;
        if line.0.trim().is_empty() { Ok(()) } else { said(line) }
    }

    /// A state with a transition; `[*]` is start and end.
    fn state(&mut self, line: &mut Line) -> Outcome {
        if !line.take("[*]") {
            let name = line.name()?;
            self.seen(name).is_used = true;
        }
        Ok(())
    }

    // -------------------------------------------------------------------------------------------- all of them

    fn finish(&self) -> Result<(), (usize, String)> {
        if let Some((what, line)) = self.open.last() {
            return Err((*line, format!("{what} has no end")));
        }
        if self.in_note {
            return Err((self.line, "a note has no end".to_owned()));
        }
        if self.names.is_empty() {
            return Err((1, "nothing is drawn".to_owned()));
        }
        let alone = self.names.iter().find(|(_, seen)| !seen.is_used && !seen.is_declared);
        alone.map_or(Ok(()), |(name, seen)| Err((seen.line, format!("{name} is neither declared nor connected"))))
    }
}

fn direction(line: &mut Line) -> Outcome {
    line.take_any(&DIRECTIONS).ok_or_else(|| format!("expected a direction at {:?}", line.0))?;
    line.end()
}

/// `: text` up to the end of the line.
fn said(line: &mut Line) -> Outcome {
    line.expect(":")?;
    check_text(line.0.trim())
}

fn edge(line: &mut Line) -> Outcome {
    if line.take_any(&EDGES).is_some() {
        return if line.take("|") { check_text(line.up_to("|")?) } else { Ok(()) };
    }
    for (open, close) in [("-- ", "-->"), ("-. ", ".->"), ("== ", "==>")] {
        if line.take(open) {
            return check_text(line.up_to(close)?);
        }
    }
    Err(format!("expected an edge at {:?}", line.0))
}

/// Reads a diagram. An error has its line in the block, counted from 1.
fn check(source: &str) -> Result<(), (usize, String)> {
    let mut diagram = Diagram::default();
    let mut read: Option<fn(&mut Diagram, &mut Line) -> Outcome> = None;
    for (at, text) in source.lines().enumerate() {
        diagram.line = at + 1;
        let mut line = Line(text.trim());
        if line.0.is_empty() || (line.0.starts_with("%%") && !line.0.starts_with("%%{")) {
            continue;
        }
        let outcome = match read {
            Some(read) => read(&mut diagram, &mut line),
            None if line.take_word("flowchart") => {
                read = Some(Diagram::flowchart);
                direction(&mut line)
            }
            None if line.take_word("sequenceDiagram") => {
                read = Some(Diagram::sequence);
                line.end()
            }
            None if line.take("stateDiagram-v2") => {
                read = Some(Diagram::states);
                line.end()
            }
            None => Err("must start with flowchart, sequenceDiagram or stateDiagram-v2".to_owned()),
        };
        outcome.map_err(|problem| (at + 1, problem))?;
    }
    diagram.finish()
}

fn problem(page: &Page, (line, body): (usize, &str)) -> Option<String> {
    check(body).err().map(|(at, problem)| format!("{}:{}: {problem}", page.name, line + at))
}

#[test]
fn diagrams_as_the_pages_have_them_are_read() {
    for good in [
        "flowchart LR\n  %% a remark\n  a[\"one (1)\"] --> b(two)\n  b -->|yes| c{why?} & d\n  c -- no --> a\n",
        "flowchart TD\n  subgraph s[\"a part\"]\n    direction LR\n    a --- b\n  end\n  s -.-> c([c])\n  d[alone]\n",
        "sequenceDiagram\n  autonumber\n  participant A as the API server\n  actor B\n  A->>+B: a word, and more\n  B-->>-A: yes\n  Note over A,B: a note\n",
        "sequenceDiagram\n  participant A\n  loop each 6 s\n    alt it works\n      A->>A: x\n    else\n      A-xA: y\n    end\n  end\n",
        "stateDiagram-v2\n  state \"it waits: long\" as waits\n  [*] --> waits\n  waits --> [*]: at last\n  note right of waits: a note\n",
        "stateDiagram-v2\n  direction LR\n  state a {\n    b --> c\n  }\n  note left of a\n    more lines\n  end note\n  state d <<choice>>\n",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
}

#[test]
fn what_a_viewer_would_not_draw_is_an_error_with_its_line() {
    for (bad, line, problem) in [
        ("", 1, "nothing is drawn"),
        ("graph LR\n  a --> b\n", 1, "must start with"),
        ("%%{init: {}}%%\nflowchart LR\n", 1, "must start with"),
        ("flowchart\n  a --> b\n", 1, "expected a direction"),
        ("flowchart LR\n  a[one (1)] --> b\n", 2, "must be in quotes"),
        ("flowchart LR\n  a[\"one] --> b\n", 2, "must be in quotes"),
        ("flowchart LR\n  a[one --> b\n", 2, "no \"]\""),
        ("flowchart LR\n  a -> b\n", 2, "expected an edge"),
        ("flowchart LR\n  a -->|yes b\n", 2, "no \"|\""),
        ("flowchart LR\n  a -->\n", 2, "expected a name"),
        ("flowchart LR\n  a --> end\n", 2, "expected a name"),
        ("flowchart LR\n  a --> b\n  c\n", 3, "c is neither declared nor connected"),
        ("flowchart LR\n  a[x] --> b\n  a[y] --> b\n", 3, "a is declared twice"),
        ("flowchart LR\n  subgraph s\n  a --> b\n", 2, "subgraph s has no end"),
        ("flowchart LR\n  a --> b\n  end\n", 3, "an end without a start"),
        ("flowchart LR\n  a --> b\n  style a fill:red\n", 3, "expected an edge"),
        ("sequenceDiagram\n  A->>B: x\n", 2, "A is not declared"),
        ("sequenceDiagram\n  participant A\n  A->>A\n", 3, "expected \":\""),
        ("sequenceDiagram\n  participant A\n  A=>A: x\n", 3, "expected an arrow"),
        ("sequenceDiagram\n  participant A\n  A->>A: one; two\n", 3, "must be in quotes"),
        ("sequenceDiagram\n  participant A\n  A->>A: end\n", 3, "the word \"end\""),
        ("sequenceDiagram\n  participant A\n  else\n", 3, "\"else\" outside of \"alt\""),
        ("sequenceDiagram\n  participant A\n  loop x\n  A->>A: y\n", 3, "loop has no end"),
        ("sequenceDiagram\n  participant A\n  Note A: x\n", 3, "a note is over"),
        ("stateDiagram-v2\n  a -> b\n", 2, "expected \"-->\""),
        ("stateDiagram-v2\n  state \"x as a\n", 2, "no \"\\\"\""),
        ("stateDiagram-v2\n  state a {\n  b --> c\n", 2, "state has no end"),
        ("stateDiagram-v2\n  a --> b\n  note right of c: x\n", 3, "c is neither declared nor connected"),
        ("stateDiagram-v2\n  a --> b\n  note right of a\n  x\n", 4, "a note has no end"),
    ] {
        let found = check(bad).expect_err(bad);
        assert!(found.0 == line && found.1.contains(problem), "{bad}: {found:?}");
    }
}

#[test]
fn the_diagrams_of_the_pages_can_be_drawn() {
    let mut wrong = Vec::new();
    for page in all_pages() {
        let blocks = blocks(&page).unwrap_or_else(|error| panic!("{error}"));
        let diagrams = blocks.iter().filter(|block| block.info.starts_with("mermaid"));
        wrong.extend(diagrams.filter_map(|block| problem(&page, (block.line, &block.body))));
    }
    assert_none("diagrams", &wrong);
}
