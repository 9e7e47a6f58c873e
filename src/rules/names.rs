//! Names of created objects: pure functions of the QuarksJob, so that a repeated create finds what the first one created.

use std::collections::BTreeSet;

use crate::api::{LABEL_MAX, Uid};
use crate::digest::short_hex;

/// Longest Job name: pod names add a suffix of 11, and Indexed host names must stay within 63.
const JOB_NAME_MAX: usize = 52;
/// Hex digits of a hash in a name.
const HASH_DIGITS: usize = 8;

/// The Job of run `run` of the QuarksJob. Dots become dashes, so that the name is also a valid host name.
pub fn job_name(quarks_job: &str, uid: &Uid, run: u64) -> String {
    let suffix = format!("-{}-{run}", short_hex(uid.as_str().as_bytes(), HASH_DIGITS));
    let stem = quarks_job.replace('.', "-");
    let stem = cut(&stem, JOB_NAME_MAX - suffix.len());
    format!("{}{suffix}", stem.trim_end_matches('-'))
}

/// The run number in a Job name made by [`job_name`] for the same QuarksJob.
pub fn run_of_job_name(job_name: &str) -> Option<u64> {
    job_name.rsplit_once('-')?.1.parse().ok()
}

/// `text` as a label value: unchanged if it is one, else characters that are not allowed become dashes,
/// and a text that is too long is cut and gets a hash of the whole, so that two long texts stay two values.
pub fn label_value(text: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let safe: String = text.chars().map(|c| if is_allowed(c) { c } else { '-' }).collect();
    let trimmed = safe.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if trimmed.len() <= LABEL_MAX {
        return trimmed.to_owned();
    }
    cut_with_hash(trimmed, text)
}

/// The volume with a container's output files: `output-<container>`, cut with a hash if that is too long.
pub fn output_volume(container: &str) -> String {
    let name = format!("output-{container}");
    if name.len() <= LABEL_MAX { name } else { cut_with_hash(&name, &name) }
}

/// `name`, with a number at its end if another thing is called so; `taken` are all names, and gets this one.
pub fn free_name(taken: &mut BTreeSet<String>, name: &str) -> String {
    let mut free = name.to_owned();
    let mut number = 0;
    while !taken.insert(free.clone()) {
        number += 1;
        free = format!("{}-{number}", cut(name, LABEL_MAX - 6));
    }
    free
}

fn cut_with_hash(text: &str, hashed: &str) -> String {
    let stem = cut(text, LABEL_MAX - HASH_DIGITS - 1).trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{stem}-{}", short_hex(hashed.as_bytes(), HASH_DIGITS))
}

/// At most `max` bytes of `text`, cut at a character boundary.
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_names_are_short_valid_and_distinct() {
        let uid = Uid::from("7d5f0a4e-0000-4000-8000-000000000000");
        let other = Uid::from("7d5f0a4e-0000-4000-8000-000000000001");
        let long = "a".repeat(253);
        for name in ["errand1", "a.b.c", long.as_str(), "x-", "a...", &format!("{}-.b", "q".repeat(40))] {
            for run in [1, 9_999, u64::MAX] {
                let job = job_name(name, &uid, run);
                assert!(job.len() <= 52, "{job}");
                assert!(job.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{job}");
                assert!(job.starts_with(|c: char| c.is_ascii_alphanumeric()) && !job.contains("--"), "{job}");
                assert_eq!(run_of_job_name(&job), Some(run));
                assert_eq!(job, job_name(name, &uid, run));
                assert_ne!(job, job_name(name, &other, run));
            }
        }
    }

    #[test]
    fn label_values_are_unchanged_when_valid_and_safe_otherwise() {
        for (text, expected) in [("web", "web"), ("a.b_c-D", "a.b_c-D"), ("-x-", "x"), ("a/b c", "a-b-c"), ("", ""), ("///", "")] {
            assert_eq!(label_value(text), expected);
        }
        let (one, two) = (format!("{}1", "n".repeat(252)), format!("{}2", "n".repeat(252)));
        assert_eq!(label_value(&one).len(), 63);
        assert_ne!(label_value(&one), label_value(&two));
        assert_eq!(label_value(&"n".repeat(63)), "n".repeat(63));
    }

    #[test]
    fn volume_names_stay_within_the_limit() {
        assert_eq!(output_volume("main"), "output-main");
        let (one, two) = ("c".repeat(63), format!("{}d", "c".repeat(62)));
        assert!(output_volume(&one).len() <= 63);
        assert_ne!(output_volume(&one), output_volume(&two));
    }
}
