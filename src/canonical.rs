//! One spelling for templates that mean the same: what the API server would store. Pure.
//!
//! Tools write `creationTimestamp: null`, `resources: {}` and `cpu: "1"` where a person writes nothing and `cpu: 1`. GitOps tools
//! apply either form forever, and `once` means once per template. Defaults are not filled in: they differ between versions of
//! Kubernetes.

use serde_json::{Map, Value};

/// The template without nulls, empty maps and empty lists, and with one spelling for each quantity.
///
/// Entries of a list stay, even empty ones: without them the others would stand in another place.
pub fn canonical(template: &Value) -> Value {
    canonical_at("", "", template).unwrap_or(Value::Null)
}

/// The value below the field `name` of the field `parent`; `None` if it says nothing.
fn canonical_at(parent: &str, name: &str, value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(fields) => {
            let is_amounts = matches!((parent, name), ("resources", "requests" | "limits") | (_, "overhead"));
            let mut kept = Map::new();
            for (field, value) in fields {
                let is_quantity =
                    is_amounts || matches!((name, field.as_str()), ("emptyDir", "sizeLimit") | ("resourceFieldRef", "divisor"));
                let value = if is_quantity { quantity(value) } else { None }.or_else(|| canonical_at(name, field, value));
                if let Some(value) = value {
                    kept.insert(field.clone(), value);
                }
            }
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(entries) => {
            let entries: Vec<Value> = entries.iter().map(|entry| canonical_at(name, "", entry).unwrap_or(Value::Null)).collect();
            (!entries.is_empty()).then_some(Value::Array(entries))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value.clone()),
    }
}

/// A quantity in one spelling.
fn quantity(value: &Value) -> Option<Value> {
    amount(value).map(|(number, exponent)| Value::String(format!("{number}e{exponent}")))
}

/// A quantity (`resource.Quantity` of Kubernetes) as a whole number and an exponent of ten; `None` for what is none, or has more than 18 digits.
pub fn amount(value: &Value) -> Option<(i64, i32)> {
    match value {
        Value::String(text) => decimal(text),
        Value::Number(number) => decimal(&number.to_string()),
        _ => None,
    }
}

/// A quantity in thousandths, to compare; `None` also for what is finer or has more than 18 digits.
pub fn thousandths(text: &str) -> Option<i64> {
    let (number, exponent) = decimal(text)?;
    number.checked_mul(10_i64.checked_pow(u32::try_from(exponent + 3).ok()?)?)
}

/// Number and exponent; the number ends in no zero.
fn decimal(text: &str) -> Option<(i64, i32)> {
    // In `1e3` the sign of the exponent comes after the letter, so it is in the suffix.
    let digits_end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (factor, exponent) = multiplier(suffix)?;
    let mut number = format!("{whole}{fraction}").parse::<i64>().ok()?.checked_mul(factor)?;
    let mut exponent = exponent - i32::try_from(fraction.len()).ok()?;
    if number == 0 {
        return Some((0, 0));
    }
    while number % 10 == 0 {
        number /= 10;
        exponent += 1;
    }
    Some((number, exponent))
}

/// What a suffix stands for: a factor, and an exponent of ten.
fn multiplier(suffix: &str) -> Option<(i64, i32)> {
    const DECIMAL: [(&str, i32); 10] =
        [("", 0), ("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some((_, exponent)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return Some((1, *exponent));
    }
    if let Some(thousands) = BINARY.iter().position(|known| *known == suffix) {
        return Some((1 << (10 * (thousands + 1)), 0));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok().filter(|exponent: &i32| exponent.abs() <= 30)?;
    Some((1, exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(resources: Value) -> Value {
        json!({"spec": {"template": {"metadata": {}, "spec": {"containers": [{"name": "c", "resources": resources}]}}}})
    }

    #[test]
    fn what_says_nothing_does_not_count() {
        let plain = json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}});
        for written in [
            json!({"metadata": {"creationTimestamp": null}, "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}),
            json!({"spec": {"template": {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "c", "env": [], "resources": {}}]}}}}),
            json!({"spec": {"template": {"spec": {"volumes": [], "containers": [{"name": "c", "resources": {"limits": {}}}]}}}}),
        ] {
            assert_eq!(canonical(&written), canonical(&plain), "{written}");
        }
        assert_eq!(canonical(&json!({"a": null})), Value::Null);
        assert_eq!(canonical(&Value::Null), Value::Null);
    }

    #[test]
    fn what_says_something_does() {
        let plain = container(json!({"limits": {"cpu": "1"}}));
        for other in [
            container(json!({"limits": {"cpu": "2"}})),
            container(json!({"requests": {"cpu": "1"}})),
            container(json!({"limits": {"memory": "1"}})),
            json!({"spec": {"suspend": false, "template": plain["spec"]["template"]}}),
        ] {
            assert_ne!(canonical(&other), canonical(&plain), "{other}");
        }
        let args = |args: Value| json!({"spec": {"args": args}});
        assert_ne!(canonical(&args(json!(["a", {}]))), canonical(&args(json!([{}, "a"]))), "entries keep their places");
        assert_ne!(canonical(&args(json!(["1"]))), canonical(&args(json!([1]))), "only quantities have two spellings");
        assert_ne!(canonical(&json!({"limits": {"cpu": "1"}})), canonical(&json!({"limits": {"cpu": 1}})), "not below resources");
        assert_ne!(canonical(&json!({"a": ""})), canonical(&json!({})));
    }

    #[test]
    fn quantities_are_compared_by_their_value() {
        let same = [
            vec![json!("1"), json!(1), json!("1000m"), json!("1.0"), json!("+1"), json!("1e0"), json!(1.0)],
            vec![json!("500m"), json!(0.5), json!("0.5"), json!(".5"), json!("500000u"), json!("5e-1")],
            vec![json!("1Gi"), json!("1024Mi"), json!("1073741824"), json!(1_073_741_824_u64)],
            vec![json!("1.5Ki"), json!("1536")],
            vec![json!("1k"), json!("1000"), json!("1E3"), json!("1e+3")],
            vec![json!("1E"), json!("1000P")],
            vec![json!("0"), json!(0), json!("0m"), json!("-0")],
            vec![json!("-1"), json!("-1000m")],
        ];
        for group in &same {
            for value in group {
                assert_eq!(quantity(value), quantity(&group[0]), "{value}");
                assert!(quantity(value).is_some(), "{value}");
            }
        }
        let mut values: Vec<_> = same.iter().map(|group| quantity(&group[0]).map(|value| value.to_string())).collect();
        values.sort();
        values.dedup();
        assert_eq!(values.len(), same.len(), "different values stay different");
        for none in
            [json!(""), json!("one"), json!("1 Gi"), json!("1Xi"), json!("."), json!("1.2.3"), json!("--1"), json!("1e99"), json!([])]
        {
            assert_eq!(quantity(&none), None, "{none}");
        }
    }

    #[test]
    fn quantities_are_known_by_their_place() {
        let at = |value: Value| {
            canonical(&json!({"spec": {"template": {"spec": {
                "overhead": {"cpu": value},
                "resources": {"requests": {"cpu": value}},
                "containers": [{"resources": {"limits": {"cpu": value}}, "env": [{"valueFrom": {"resourceFieldRef": {"divisor": value}}}]}],
                "volumes": [{"emptyDir": {"sizeLimit": value}}, {"ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": value}}}}}}],
            }}}}))
        };
        assert_eq!(at(json!("1")), at(json!(1)));
        assert_eq!(at(json!("1")).to_string().matches("\"1e0\"").count(), 6);
        assert_eq!(canonical(&container(json!({"limits": {"cpu": "what"}}))), container_without_metadata("what"), "left as it is");
    }

    fn container_without_metadata(cpu: &str) -> Value {
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": cpu}}}]}}}})
    }
}
