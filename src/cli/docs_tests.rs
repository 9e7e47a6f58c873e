//! What the pages say of flags is what the program has, both ways.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::flag::{Flag, Help};
use super::flags::{Flags, OPERATOR};

#[allow(dead_code)]
#[path = "../../tests/docs/pages.rs"]
mod pages;

const COMMANDS_PAGE: &str = "docs/commands.md";
/// Defaults that are no values.
const IN_WORDS: [&str; 8] = ["", "by label", "current", "in-cluster, else ~/.kube/config", "none", "off", "the node's disk", "the version"];

fn flags(help: &Help) -> impl Iterator<Item = &'static Flag> {
    help.flags.iter().copied().flatten()
}

#[test]
fn the_table_of_the_operators_flags_is_theirs() {
    let table = pages::table("| flag | variable | default | meaning |");
    assert!(table.place.starts_with("docs/operator.md:"), "{}", table.place);
    let rows: Vec<String> = table.rows.iter().map(|row| row[..3].join(" | ").replace('`', "")).collect();
    let row = |flag: &Flag| {
        let short = flag.short.map_or(String::new(), |short| format!("-{short}, "));
        format!("{short}{} | {} | {}", flag.call(), flag.variable, flag.default)
    };
    let flags: Vec<String> = OPERATOR.iter().copied().flatten().map(row).collect();
    for (row, flag) in rows.iter().zip(&flags) {
        assert_eq!(row, flag, "{}: the first row that is not as its flag", table.place);
    }
    assert_eq!(rows.len(), flags.len(), "{}: rows and flags", table.place);
}

#[test]
fn a_default_is_what_counts_when_nothing_is_given() {
    let parse = |arguments: Vec<OsString>| Flags::parse(arguments, &|_| None).expect("valid");
    for flag in OPERATOR.iter().copied().flatten().filter(|flag| !IN_WORDS.contains(&flag.default)) {
        let mut arguments = vec![OsString::from(format!("--{}={}", flag.name, flag.default))];
        let mut nothing = Vec::new();
        if flag.name == "sidecar-service-account" {
            let namespaces = OsString::from("--watch-namespaces=a");
            arguments.push(namespaces.clone());
            nothing.push(namespaces);
        }
        assert_eq!(parse(arguments), parse(nothing), "--{}", flag.name);
    }
}

#[test]
fn the_flags_of_the_commands_are_named_with_them() {
    let of_commands: Vec<&Flag> = super::COMMANDS.iter().flat_map(|(_, help, _)| flags(help)).collect();
    let called = |flag: &&Flag| [Some(format!("--{}", flag.name)), flag.short.map(|short| format!("-{short}"))];
    let known: BTreeSet<String> = of_commands.iter().flat_map(called).flatten().chain(["--help".to_owned()]).collect();
    let text = pages::page(COMMANDS_PAGE).text;
    let words: BTreeSet<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| word.starts_with('-')).collect();
    let named = words.iter().filter(|word| !word.trim_start_matches('-').is_empty());
    assert_eq!(named.filter(|word| !known.contains(**word)).collect::<Vec<_>>(), [&""; 0], "{COMMANDS_PAGE} names flags that do not exist");
    // Those for the sidecar are the operator's.
    let own = of_commands.iter().filter(|flag| !OPERATOR[1].contains(flag));
    let is_named = |flag: &&&Flag| called(flag).iter().flatten().any(|call| words.contains(call.as_str()));
    assert_eq!(own.filter(|flag| !is_named(flag)).map(|flag| flag.name).collect::<Vec<_>>(), [""; 0], "{COMMANDS_PAGE} does not name them");
}

#[test]
fn help_names_each_flag_with_variable_and_default() {
    static FLAGS: [Flag; 4] = [
        Flag::new("one", "FILE", "ONE", "here", "a file").short('o'),
        Flag::new("two", "[=false]", "", "", "a switch,\nor not"),
        Flag::new("hidden", "X", "HIDDEN", "1", ""),
        Flag::new("of-a-length-that-takes-its-own-line", "N", "", "1", "a number"),
    ];
    static MORE: [Flag; 1] = [Flag::new("three", "", "", "", "alone")];
    static GROUPS: [&[Flag]; 2] = [&FLAGS, &MORE];
    let help = Help { head: "Usage: {me}\n\n", flags: &GROUPS, tail: "\nEnd.\n" };
    let expected = "\
Usage: kubectl qjob

  -o, --one FILE                      [ONE] a file (here)
      --two[=false]                   a switch,
                                      or not
      --of-a-length-that-takes-its-own-line N
                                      a number (1)
      --three                         alone

End.
";
    assert_eq!(help.text("kubectl qjob"), expected);
}
