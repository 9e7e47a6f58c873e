//! Tables for `document`.

use super::*;

const CANARY: &str = "CANARY-s3cr3t";

fn document(members: &[(&str, &str)]) -> Data {
    Data::of(members)
}

#[test]
fn the_last_of_the_allowed_documents_counts() {
    for (text, documents, expected) in [
        (r#"{"a":"1"}"#, 1, document(&[("a", "1")])),
        ("{}", 1, document(&[])),
        (" \n{\"a\":\"1\"}\r\n\t", 1, document(&[("a", "1")])),
        ("{\"a\":\"1\"}\n{\"b\":\"2\"}\n", 2, document(&[("b", "2")])),
        ("{\"a\":\"1\"}{\"b\":\"2\"}", 3, document(&[("b", "2")])),
        // Content of earlier documents does not count, as long as they are objects.
        ("{\"a\":1,\"a\":[{}],\"\":null}\n{\"b\":\"2\"}\n", 2, document(&[("b", "2")])),
        (r#"{"a":"{\"b\":\"c\"}"}"#, 1, document(&[("a", r#"{"b":"c"}"#)])),
        (r#"{"a":"\u0000\n\ud83e\udd80"}"#, 1, document(&[("a", "\0\n🦀")])),
        (r#"{"._-aZ9":""}"#, 1, document(&[("._-aZ9", "")])),
    ] {
        assert_eq!(parse(text.as_bytes(), documents), Ok(expected), "{text}");
    }
}

#[test]
fn errors_name_key_and_type() {
    for (bytes, documents, expected) in [
        (&b""[..], 1, "empty; must be a JSON object of strings"),
        (b" \n\t", 1, "empty; must be a JSON object of strings"),
        (b"\xEF\xBB\xBF{}", 1, "starts with a byte order mark; must be plain UTF-8"),
        (b"\xFF\xFE{", 1, "not valid UTF-8 at offset 0"),
        (b"{\"a\":\"\xC3\"}", 1, "not valid UTF-8 at offset 6"),
        (b"{}\0", 1, "NUL byte at offset 2"),
        (b"[]", 1, "must be a JSON object of strings, not an array"),
        (b"\"x\"", 1, "must be a JSON object of strings, not a string"),
        (b"12", 1, "must be a JSON object of strings, not a number"),
        (b"null", 1, "must be a JSON object of strings, not null"),
        (b"{\"a\":1}", 1, "key \"a\" must be a string, not a number"),
        (b"{\"a\":-1.5}", 1, "key \"a\" must be a string, not a number"),
        (b"{\"a\":true}", 1, "key \"a\" must be a string, not a boolean"),
        (b"{\"a\":null}", 1, "key \"a\" must be a string, not null"),
        (b"{\"a\":[\"b\"]}", 1, "key \"a\" must be a string, not an array"),
        (b"{\"a\":{\"b\":\"c\"}}", 1, "key \"a\" must be a string, not an object"),
        (b"{\"a\":\"1\",\"a\":\"1\"}", 1, "duplicate key \"a\""),
        (b"{} {}", 1, "trailing data at line 1 column 4; expected at most 1 JSON objects (restarts + 1)"),
        (b"{}\n{}\n{}", 2, "trailing data at line 3 column 1; expected at most 2 JSON objects (restarts + 1)"),
        (b"{}\n[]", 2, "trailing data at line 2 column 1; expected at most 2 JSON objects (restarts + 1)"),
        (b"{}\n{\"a\":", 2, "trailing data at line 2 column 5; expected at most 2 JSON objects (restarts + 1)"),
        (b"{} x", 1, "trailing data at line 1 column 4; expected at most 1 JSON objects (restarts + 1)"),
        (b"{\"a\":\"1\",}", 1, "not valid JSON: trailing comma at line 1 column 10"),
        (b"{\"a\":\"\n\"}", 1, "not valid JSON: control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0"),
        (b"{'a':'b'}", 1, "not valid JSON: key must be a string at line 1 column 2"),
    ] {
        assert_eq!(parse(bytes, documents).unwrap_err().to_string(), expected, "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn keys_follow_kubernetes() {
    let longest = "k".repeat(253);
    for key in ["a", "A.b-c_d9", ".dockercfg", "a..b", "-", &longest] {
        assert!(is_secret_key(key), "{key}");
    }
    let too_long = "k".repeat(254);
    for key in ["", ".", "..", "..a", "a b", "a/b", "é", "a\0", "a\n", &too_long] {
        assert!(!is_secret_key(key), "{key}");
        let text = serde_json::json!({ key: CANARY }).to_string();
        assert!(matches!(parse(text.as_bytes(), 1), Err(DocumentError::Key(found)) if found == key));
    }
}

#[test]
fn a_long_key_is_quoted_in_part() {
    let text = format!("{{\"{}\":1}}", "é".repeat(5000));
    assert!(parse(text.as_bytes(), 1).unwrap_err().to_string().len() < 1000);
}

#[test]
fn one_mebibyte_of_values_and_no_more() {
    let half = "x".repeat(SECRET_LIMIT / 2);
    let fits = format!(r#"{{"a":"{half}","b":"{half}"}}"#);
    assert_eq!(parse(fits.as_bytes(), 1).unwrap().len(), 2);
    let over = format!(r#"{{"a":"{half}","b":"{half}","c":"x"}}"#);
    assert_eq!(parse(over.as_bytes(), 1), Err(DocumentError::TooLarge));
    // What counts is the decoded length.
    let escaped = format!(r#"{{"a":"{}"}}"#, "\\n".repeat(SECRET_LIMIT));
    assert_eq!(parse(escaped.as_bytes(), 1), Ok(document(&[("a", &"\n".repeat(SECRET_LIMIT))])));
    let keys: String = (0..100_000).map(|n| format!("\"{n:06}\":\"\",")).collect();
    let many = format!("{{{}}}", keys.trim_end_matches(','));
    assert_eq!(parse(many.as_bytes(), 1), Err(DocumentError::TooLarge));
}

#[test]
fn deep_nesting_ends_in_an_error() {
    for text in ["[".repeat(200_000), r#"{"a":"#.repeat(200_000), format!("{{\"a\":{}", "[".repeat(200_000))] {
        assert!(matches!(parse(text.as_bytes(), 1), Err(DocumentError::Syntax(_))));
        assert!(parse_fan_out(text.as_bytes(), 1).is_err());
    }
}

#[test]
fn fan_out_takes_objects_and_objects_as_strings() {
    let text = r#"{"a":{"x":"1"},"b":"{\"y\":\"2\"}","c":{}}"#;
    let expected = [("a".to_owned(), document(&[("x", "1")])), ("b".to_owned(), document(&[("y", "2")])), ("c".to_owned(), document(&[]))];
    assert_eq!(parse_fan_out(text.as_bytes(), 1), Ok(expected.into()));
    let appended = format!("{{\"old\":1}}\n{text}\n");
    assert_eq!(parse_fan_out(appended.as_bytes(), 2).unwrap().len(), 3);
    for (text, expected) in [
        (r#"{"a":1}"#, "key \"a\" must be an object of strings, not a number"),
        (r#"{"a":["x"]}"#, "key \"a\" must be an object of strings, not an array"),
        (r#"{"a":{"x":1}}"#, "key \"a\": key \"x\" must be a string, not a number"),
        (r#"{"a":"{\"x\":1}"}"#, "key \"a\": key \"x\" must be a string, not a number"),
        (r#"{"a":"plain"}"#, "key \"a\": not valid JSON: expected value at line 1 column 1"),
        (r#"{"a":"{} {}"}"#, "key \"a\": trailing data at line 1 column 4; expected at most 1 JSON objects (restarts + 1)"),
        (r#"{"a":{},"a":{}}"#, "duplicate key \"a\""),
        (
            r#"{"a":{"..":"x"}}"#,
            "key \"a\": key \"..\" is not a valid Secret key: 1 to 253 letters, digits, '-', '_' or '.', not starting with '..'",
        ),
    ] {
        assert_eq!(parse_fan_out(text.as_bytes(), 1).unwrap_err().to_string(), expected);
    }
}

#[test]
fn fan_out_is_bounded() {
    let file = |secrets: usize, keys: usize| {
        let entry: Vec<_> = (0..keys).map(|key| format!("\"{key}\":\"\"")).collect();
        let entries: Vec<_> = (0..secrets).map(|secret| format!("\"{secret}\":{{{}}}", entry.join(","))).collect();
        format!("{{{}}}", entries.join(","))
    };
    for (secrets, keys, expected) in
        [(1000, 1, Ok(1000)), (1001, 1, Err(DocumentError::TooMany)), (5, 10_000, Ok(5)), (6, 10_000, Err(DocumentError::TooMany))]
    {
        assert_eq!(parse_fan_out(file(secrets, keys).as_bytes(), 1).map(|entries| entries.len()), expected, "{secrets} {keys}");
    }
}

#[test]
fn no_error_shows_a_value() {
    let good = format!(r#"{{"a":"{CANARY}"}}"#);
    let mut malformed = vec![
        format!("\"{CANARY}\""),
        format!("[\"{CANARY}\"]"),
        CANARY.to_owned(),
        format!(r#"{{"a":["{CANARY}"]}}"#),
        format!(r#"{{"a":{{"b":"{CANARY}"}}}}"#),
        format!(r#"{{"a":"{CANARY}","a":"{CANARY}"}}"#),
        format!(r#"{{"a":"{CANARY}","b":1}}"#),
        format!(r#"{{"/":"{CANARY}"}}"#),
        format!(r#"{{"a":{CANARY}}}"#),
        format!("{{\"a\":\"{CANARY}\n\"}}"),
        format!("{{\"a\":\"{CANARY}\\x\"}}"),
        format!("{{\"a\":\"{CANARY}\\ud800\"}}"),
        format!("{{'a':'{CANARY}'}}"),
        format!("a={CANARY}"),
        format!("{good}{good}"),
        format!("{good}{CANARY}"),
        format!("{{\"a\":{{\"b\":\"{CANARY}\",\"c\":2}}}}"),
        format!("{{\"a\":\"{{\\\"b\\\":[\\\"{CANARY}\\\"]}}\"}}"),
        format!("{good}\0"),
        format!("\u{feff}{good}"),
    ];
    malformed.extend((0..good.len()).map(|end| good[..end].to_owned()));
    for text in malformed {
        let errors = [parse(text.as_bytes(), 1).err(), parse_fan_out(text.as_bytes(), 1).err()];
        assert!(errors.iter().any(Option::is_some), "{text}");
        for error in errors.into_iter().flatten() {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("CANARY") && !shown.contains("s3cr3t"), "{shown}");
        }
    }
}
