//! What README.md says of flags is what the program has, both ways.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::flag::{Flag, Help};
use super::flags::{Flags, OPERATOR};

const README: &str = include_str!("../../README.md");
/// Defaults that are no values.
const IN_WORDS: [&str; 8] = ["", "by label", "current", "in-cluster, else ~/.kube/config", "none", "off", "the node's disk", "the version"];

/// A section up to the next of its level.
fn section(title: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("README has a section {title}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

fn flags(help: &Help) -> impl Iterator<Item = &'static Flag> {
    help.flags.iter().copied().flatten()
}

#[test]
fn the_table_of_the_operators_flags_is_theirs() {
    let table = section("Operator").lines().skip_while(|line| !line.starts_with("| flag |")).skip(2);
    let rows: Vec<String> = table
        .take_while(|line| line.starts_with('|'))
        .map(|row| row.split('|').skip(1).take(3).map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>().join(" | "))
        .collect();
    let row = |flag: &Flag| {
        let short = flag.short.map_or(String::new(), |short| format!("-{short}, "));
        format!("{short}{} | {} | {}", flag.call(), flag.variable, flag.default)
    };
    assert_eq!(rows, OPERATOR.iter().copied().flatten().map(row).collect::<Vec<_>>());
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
    let text = section("Commands");
    let words: BTreeSet<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| word.starts_with('-')).collect();
    let named = words.iter().filter(|word| !word.trim_start_matches('-').is_empty());
    assert_eq!(named.filter(|word| !known.contains(**word)).collect::<Vec<_>>(), [&""; 0], "README names flags that are not there");
    // Those for the sidecar are the operator's.
    let own = of_commands.iter().filter(|flag| !OPERATOR[1].contains(flag));
    let is_named = |flag: &&&Flag| called(flag).iter().flatten().any(|call| words.contains(call.as_str()));
    assert_eq!(own.filter(|flag| !is_named(flag)).map(|flag| flag.name).collect::<Vec<_>>(), [""; 0], "README does not name them");
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
