//! Which Secrets an output writes, by name. Pure.

use crate::api::Output;

/// `X` of a name `X-vN`, whatever the number.
pub fn base_of(name: &str) -> Option<&str> {
    let (base, number) = name.rsplit_once("-v")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !base.is_empty()).then_some(base)
}

/// True if versions of `base` come from this output. With fan-out and Indexed Jobs more follows the name.
pub fn is_of_output(output: &Output, is_indexed: bool, base: &str) -> bool {
    let is_below = |prefix: &str| base.strip_prefix(prefix).is_some_and(|rest| rest.len() > 1 && rest.starts_with('-'));
    let mut versioned = output.all().filter(|file| file.versioned);
    versioned.any(|file| if file.fan_out || is_indexed { is_below(&file.name) } else { file.name == base })
}

/// True if a Secret with this name is surely written by this output. Names that merely begin like one are not: whose they are
/// only the Secret itself shows.
pub fn is_output_name(output: &Output, is_indexed: bool, name: &str) -> bool {
    let mut exact = output.all().filter(|file| !file.fan_out && !is_indexed);
    exact.any(|file| if file.versioned { base_of(name) == Some(&file.name) } else { file.name == name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Spec;
    use serde_json::json;

    #[test]
    fn bases() {
        for (name, base) in [
            ("db-v1", Some("db")),
            ("db-v0", Some("db")),
            ("db-v007", Some("db")),
            ("db-v99999999999999999999", Some("db")),
            ("a-v1-v22", Some("a-v1")),
            ("a.b-v3", Some("a.b")),
            ("db", None),
            ("db-v", None),
            ("-v1", None),
            ("db-v1a", None),
            ("db-v-1", None),
            ("db-v+1", None),
            ("db-vx-1", None),
            ("dbv1", None),
            ("db-v1-", None),
            ("db-v١", None),
            ("", None),
        ] {
            assert_eq!(base_of(name), base, "{name}");
        }
    }

    #[test]
    fn names_of_an_output() {
        let spec = Spec::parse(&json!({
            "trigger": {"strategy": "once"},
            "template": {"spec": {"template": {"spec": {"containers": [{"name": "main"}, {"name": "log"}]}}}},
            "output": {"versioned": true, "namePrefix": "logs", "outputMap": {"main": {
                "a": {"name": "one"}, "b": {"name": "fan", "persistencemethod": "fan-out"}, "c": {"name": "plain", "versioned": false}
            }}}
        }));
        let output = spec.expect("valid").output.expect("has output");
        for (base, is_plain, is_indexed) in [
            ("one", true, false),
            ("one-0", false, true),
            ("fan", false, false),
            ("fan-", false, false),
            ("fan-key", true, true),
            ("fantasy", false, false),
            ("plain", false, false),
            ("plain-0", false, false),
            ("logs-log", true, false),
            ("logs-log-0", false, true),
            ("other", false, false),
        ] {
            assert_eq!((is_of_output(&output, false, base), is_of_output(&output, true, base)), (is_plain, is_indexed), "{base}");
        }
    }
}
