//! Text from elsewhere, made safe to repeat: one line, bounded, and without values. Pure.

/// Text made fit for one line of a log: no control characters, at most `max` bytes.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    for character in text.trim().chars() {
        let character = if character.is_control() { ' ' } else { character };
        if line.len() + character.len_utf8() > max {
            line.push_str("...");
            break;
        }
        line.push(character);
    }
    line
}

/// Where and why decoding failed, without the values that serde_json quotes.
pub(crate) fn describe_decode(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if error.is_data() { hide_values(&text) } else { text }
}

/// Removes what serde quotes from its input: `string "…"`, and numbers and booleans in back quotes.
/// Names of fields and types stay.
pub(crate) fn hide_values(text: &str) -> String {
    let mut hidden = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find(['"', '`']) {
        let quote = rest[open..].chars().next().unwrap_or('"');
        let before = &rest[..open];
        // A quoted string may hold quotes itself, so it reaches to the last one.
        let close = if quote == '"' { rest.rfind('"') } else { rest[open + 1..].find('`').map(|at| open + 1 + at) };
        let Some(close) = close.filter(|close| *close > open) else {
            hidden.push_str(before);
            return hidden;
        };
        let is_value =
            quote == '"' || ["integer ", "floating point ", "boolean ", "character ", "variant "].iter().any(|kind| before.ends_with(kind));
        hidden.push_str(before);
        if is_value {
            hidden.push_str("(hidden)");
        } else {
            hidden.push_str(&rest[open..=close]);
        }
        rest = &rest[close + 1..];
    }
    hidden.push_str(rest);
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_between_letters() {
        assert_eq!(one_line(&"é".repeat(300), 512).len(), 512 + 3);
    }

    #[test]
    fn decode_messages_hide_values() {
        let cases = [
            (serde_json::from_str::<u8>(r#""canary""#).map(|_| ()), "invalid type: string (hidden), expected u8 at line 1 column 8"),
            (serde_json::from_str::<u8>(r#""can\"ary""#).map(|_| ()), "invalid type: string (hidden), expected u8 at line 1 column 10"),
            (serde_json::from_str::<String>("4711").map(|_| ()), "invalid type: integer (hidden), expected a string at line 1 column 4"),
            (serde_json::from_str::<Vec<u8>>("[").map(|_| ()), "EOF while parsing a list at line 1 column 1"),
        ];
        for (result, expected) in cases {
            assert_eq!(describe_decode(&result.expect_err("an error")), expected);
        }
        let missing = serde_json::from_str::<crate::api::Event>("{}").expect_err("an error");
        assert_eq!(describe_decode(&missing), "missing field `metadata` at line 1 column 2");
    }
}
