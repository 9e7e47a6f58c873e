//! The operator's flags, and those that commands share: the command line first, then the environment, then the default.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::api::{LABEL_MAX, SIDECAR_ACCOUNT, is_subdomain};
use crate::canonical::thousandths;
use crate::election::Timing;
use crate::log::Format;
use crate::rules::sidecar::{SidecarUser, resources, volume};
use crate::rules::template::SidecarSettings;

use super::flag::{Flag, Given, Sourced};
use super::output::CliError;

/// Everything that can be set. Names are those of the original where it had them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// `--kubeconfig`, `-c`, `KUBECONFIG`: for this flag only a single file; the variable may name several.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
    /// `--monitored-id`, `MONITORED_ID`.
    pub monitored_id: String,
    /// `--watch-namespaces`, `WATCH_NAMESPACES`: these and no others, whatever their labels; empty if not given.
    pub watch_namespaces: Vec<String>,
    /// `--sidecar-service-account`, `SIDECAR_SERVICE_ACCOUNT`: the sidecar's account in those; elsewhere a label names it.
    pub sidecar_service_account: String,
    /// `--max-workers`, `MAX_WORKERS`: keys worked on at once.
    pub max_workers: usize,
    /// `--log-level`, `-l`, `LOG_LEVEL`.
    pub log_level: LevelFilter,
    /// `--log-format`, `LOG_FORMAT`.
    pub log_format: Format,
    /// `--apply-crd`, `APPLY_CRD`: create or update the CRD at start.
    pub apply_crd: bool,
    /// `--ctx-timeout`, `CTX_TIMEOUT`: limit on one API call, in seconds.
    pub call_timeout: Duration,
    /// `--image`, `IMAGE`, or made of the `--docker-image-*` flags, and all else about the sidecar: [`Given::sidecar`].
    pub sidecar: SidecarSettings,
    /// `--http-listen`, `HTTP_LISTEN`: address of `/healthz`, `/readyz` and `/metrics`; none if empty.
    pub http_listen: Option<String>,
    /// `--leader-elect`, `LEADER_ELECT`: of several operators only the holder of a Lease works.
    pub leader_elect: bool,
    /// `--leader-elect-lease-duration`, `-renew-deadline`, `-retry-period`, in seconds, as Kubernetes' own components have them.
    pub election: Timing,
    /// Flags that are taken and do nothing, for a warning.
    pub ignored: Vec<&'static str>,
}

const LEADER_ELECT: &str = "leader-elect";
const LEASE_DURATION: &str = "leader-elect-lease-duration";
const RENEW_DEADLINE: &str = "leader-elect-renew-deadline";
const RETRY_PERIOD: &str = "leader-elect-retry-period";

/// `--kubeconfig` and `--context`, the same for all commands that talk to the API server.
pub(super) const KUBECONFIG: Flag =
    Flag::new("kubeconfig", "FILE", "KUBECONFIG", "in-cluster, else ~/.kube/config", "API server and credentials").short('c');
pub(super) const CONTEXT: Flag = Flag::new("context", "NAME", "", "current", "kubeconfig context");

const SIDECAR_USER: &str = "sidecar-user";
const SIDECAR_RESOURCES: &str = "sidecar-resources";
const OUTPUT_SIZE_LIMIT: &str = "output-size-limit";
const OUTPUT_MEDIUM: &str = "output-medium";

/// How pods get the sidecar: the same for the operator and for `render`.
pub(super) static SIDECAR: [Flag; 10] = [
    Flag::new("image", "IMAGE", "IMAGE", "", "sidecar image; use the operator's own image"),
    Flag::new("docker-image-org", "ORG", "DOCKER_IMAGE_ORG", "none", "instead of --image: organization of the image").short('o'),
    Flag::new("docker-image-repository", "NAME", "DOCKER_IMAGE_REPOSITORY", "quarks-job", "instead of --image: name of the image")
        .short('r'),
    Flag::new("docker-image-tag", "TAG", "DOCKER_IMAGE_TAG", "the version", "instead of --image: tag of the image").short('t'),
    Flag::new("docker-image-pull-policy", "P", "DOCKER_IMAGE_PULL_POLICY", "IfNotPresent", "pull policy: Always, IfNotPresent or Never"),
    Flag::new("image-pull-secret", "NAME", "IMAGE_PULL_SECRET", "none", "pull secret added to pods with the sidecar"),
    Flag::new(SIDECAR_USER, "USER", "SIDECAR_USER", "auto", "auto (user of the mapped container), none (not set) or UID[:GID]"),
    Flag::new(SIDECAR_RESOURCES, "LIST", "SIDECAR_RESOURCES", "cpu=5m:100m,memory=8Mi:32Mi", "request:limit of each resource"),
    Flag::new(OUTPUT_SIZE_LIMIT, "SIZE", "OUTPUT_SIZE_LIMIT", "none", "size limit of each output volume, for example 64Mi"),
    Flag::new(OUTPUT_MEDIUM, "Memory", "OUTPUT_MEDIUM", "the node's disk", "medium of the output volumes"),
];

impl Given {
    /// `--namespace`.
    pub fn namespace(&self) -> Result<Option<String>, CliError> {
        let given = self.find("namespace");
        if given.is_some_and(|(_, name)| !is_namespace(name)) {
            return Err(bad(given, NO_NAMESPACE));
        }
        Ok(self.value("namespace"))
    }

    /// How pods get the sidecar.
    pub fn sidecar(&self, log_level: LevelFilter, log_format: Format) -> Result<SidecarSettings, CliError> {
        let user = self.find(SIDECAR_USER);
        let parts = self.find(SIDECAR_RESOURCES);
        let (size_limit, medium) = (self.find(OUTPUT_SIZE_LIMIT), self.find(OUTPUT_MEDIUM));
        if size_limit.is_some_and(|(_, size)| thousandths(size).is_none_or(|size| size <= 0 || size % 1_000 != 0)) {
            return Err(bad(size_limit, "is not a valid size; use a whole number of bytes, at least 1, for example 64Mi"));
        }
        if medium.is_some_and(|(_, medium)| medium != "Memory") {
            return Err(bad(medium, "is not a valid medium; use Memory, or omit the flag for the node's disk"));
        }
        let names = ["image", "docker-image-org", "docker-image-repository", "docker-image-tag"];
        for name in if self.find("image").is_some() { &names[..1] } else { &names[1..] } {
            if self.find(name).is_some_and(|(_, text)| text.is_empty() || text.contains(|c: char| !c.is_ascii_graphic())) {
                return Err(bad(self.find(name), "is not a valid part of an image name such as registry.example/org/quarks-job:1.0"));
            }
        }
        let secret = self.find("image-pull-secret");
        if secret.is_some_and(|(_, name)| !is_subdomain(name)) {
            return Err(bad(secret, "is not a valid Secret name; use lowercase letters, digits, '-' and '.'"));
        }
        Ok(SidecarSettings {
            image: self.image(),
            image_pull_policy: self.pull_policy()?,
            image_pull_secret: self.value("image-pull-secret"),
            log_level: log_level.to_string().to_ascii_lowercase(),
            log_format: log_format.as_str(),
            user: match user {
                None => SidecarUser::default(),
                Some((_, text)) => SidecarUser::parse(text)
                    .ok_or_else(|| bad(user, "is not a valid user; use auto, none, UID or UID:GID, for example 1000:1000"))?,
            },
            resources: resources(parts.map_or("", |(_, text)| text)).map_err(|(part, why)| {
                let source = parts.map(|(source, _)| source.clone()).unwrap_or_default();
                bad(Some(&(source, part.to_owned())), why)
            })?,
            volume: volume(self.value(OUTPUT_SIZE_LIMIT), self.value(OUTPUT_MEDIUM)),
        })
    }

    /// `--image` or what it is made of.
    fn image(&self) -> String {
        self.value("image").unwrap_or_else(|| {
            let repository = self.value("docker-image-repository").unwrap_or_else(|| "quarks-job".to_owned());
            let tag = self.value("docker-image-tag").unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
            match self.value("docker-image-org") {
                Some(org) => format!("{org}/{repository}:{tag}"),
                None => format!("{repository}:{tag}"),
            }
        })
    }

    /// `--docker-image-pull-policy`.
    fn pull_policy(&self) -> Result<String, CliError> {
        let policy = self.value("docker-image-pull-policy").unwrap_or_else(|| "IfNotPresent".to_owned());
        if !matches!(policy.as_str(), "Always" | "IfNotPresent" | "Never") {
            return Err(bad(self.find("docker-image-pull-policy"), "is not a valid pull policy; use Always, IfNotPresent or Never"));
        }
        Ok(policy)
    }
}

/// The operator's, besides [`SIDECAR`].
static VALUES: [Flag; 15] = [
    KUBECONFIG,
    CONTEXT,
    Flag::new("monitored-id", "ID", "MONITORED_ID", "default", "value of the namespace label quarks.cloudfoundry.org/monitored"),
    Flag::new("watch-namespaces", "A,B", "WATCH_NAMESPACES", "by label", "serve only these namespaces, ignoring labels; needs only Roles"),
    Flag::new(
        "sidecar-service-account",
        "NAME",
        "SIDECAR_SERVICE_ACCOUNT",
        SIDECAR_ACCOUNT,
        "service account of the sidecar in these namespaces",
    ),
    Flag::new("max-workers", "N", "MAX_WORKERS", "8", "concurrent QuarksJobs per controller, 1 to 64"),
    Flag::new("log-level", "LEVEL", "LOG_LEVEL", "info", "error, warn, info, debug or trace").short('l'),
    Flag::new("log-format", "FORMAT", "LOG_FORMAT", "text", "text or json (one object per line)"),
    Flag::new("http-listen", "ADDRESS", "HTTP_LISTEN", "off", "address for /healthz, /readyz and /metrics, for example :8080"),
    Flag::new(LEADER_ELECT, "[=false]", "LEADER_ELECT", "false", "with several replicas, only the holder of a Lease is active"),
    Flag::new(LEASE_DURATION, "SECONDS", "LEADER_ELECT_LEASE_DURATION", "15", "how long the Lease is valid"),
    Flag::new(
        RENEW_DEADLINE,
        "SECONDS",
        "LEADER_ELECT_RENEW_DEADLINE",
        "10",
        "a leader that cannot renew for this long stops; less than the duration",
    ),
    Flag::new(RETRY_PERIOD, "SECONDS", "LEADER_ELECT_RETRY_PERIOD", "2", "time between two tries; less than the renew deadline"),
    Flag::new("apply-crd", "[=false]", "APPLY_CRD", "false", "create or update the CRD at startup"),
    Flag::new("ctx-timeout", "SECONDS", "CTX_TIMEOUT", "30", "timeout of an API call, 1 to 600"),
];

/// Flags of the original that are taken and do nothing.
static IGNORED: [Flag; 2] = [
    Flag::new("meltdown-duration", "SECONDS", "MELTDOWN_DURATION", "", ""),
    Flag::new("meltdown-requeue-after", "SECONDS", "MELTDOWN_REQUEUE_AFTER", "", ""),
];

/// All of the operator's.
pub(super) static OPERATOR: [&[Flag]; 3] = [&VALUES, &SIDECAR, &IGNORED];

impl Flags {
    /// Reads the command line; `variable` reads the environment.
    pub fn parse(arguments: Vec<OsString>, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, CliError> {
        // It may name several files, and is read where they are.
        let variable = |name: &str| variable(name).filter(|_| name != KUBECONFIG.variable);
        let given = Given::parse(&OPERATOR, 0, &arguments, &variable)?;
        let (find, value) = (|name: &str| given.find(name), |name: &str| given.value(name));
        let watch_namespaces = namespaces(find("watch-namespaces"))?;
        let account = find("sidecar-service-account");
        if let Some((source, value)) = account {
            if watch_namespaces.is_empty() {
                let why = "requires --watch-namespaces; without it, namespace label quarks.cloudfoundry.org/qjob-service-account sets the account";
                return Err(CliError::Usage(format!("{source}: {why}")));
            }
            if !is_subdomain(value) {
                return Err(bad(account, "is not a valid service account name; use lowercase letters, digits, '-' and '.'"));
            }
        }
        let monitored_id = value("monitored-id").unwrap_or_else(|| "default".to_owned());
        if monitored_id.len() > LABEL_MAX || crate::rules::names::label_value(&monitored_id) != monitored_id {
            return Err(bad(find("monitored-id"), "is not a valid label value; use at most 63 letters, digits, '-', '_' and '.'"));
        }
        let seconds = |name: &str, default: usize| {
            // Kubernetes' components write `15s`.
            let given = find(name).map(|(source, value)| (source.clone(), value.strip_suffix('s').unwrap_or(value).to_owned()));
            number(given.as_ref(), default, 1, 600).map(|seconds| Duration::from_secs(seconds as u64))
        };
        let (lease, renew, retry) = (seconds(LEASE_DURATION, 15)?, seconds(RENEW_DEADLINE, 10)?, seconds(RETRY_PERIOD, 2)?);
        // The steps between them are what makes it safe: a leader stops before another may start, and tries twice at least.
        for (longer, shorter, name, other) in [(lease, renew, RENEW_DEADLINE, LEASE_DURATION), (renew, retry, RETRY_PERIOD, RENEW_DEADLINE)]
        {
            if shorter >= longer {
                return Err(CliError::Usage(format!("--{name}: must be less than --{other}, which is {} s", longer.as_secs())));
            }
        }
        let (log_level, log_format) = (log_level(find("log-level"))?, log_format(find("log-format"))?);
        let http_listen = value("http-listen").filter(|address| !address.is_empty());
        if http_listen.as_ref().is_some_and(|address| !crate::http::is_address(address)) {
            return Err(bad(find("http-listen"), "is not a valid address; use HOST:PORT, [IPv6]:PORT or :PORT, for example :8080"));
        }
        Ok(Self {
            kubeconfig: value("kubeconfig").map(PathBuf::from),
            context: value("context"),
            monitored_id,
            watch_namespaces,
            sidecar_service_account: value("sidecar-service-account").unwrap_or_else(|| SIDECAR_ACCOUNT.to_owned()),
            max_workers: number(find("max-workers"), 8, 1, 64)?,
            log_level,
            log_format,
            apply_crd: boolean(find("apply-crd"))?,
            call_timeout: Duration::from_secs(number(find("ctx-timeout"), 30, 1, 600)? as u64),
            sidecar: given.sidecar(log_level, log_format)?,
            http_listen,
            leader_elect: boolean(find(LEADER_ELECT))?,
            election: Timing { lease, renew, retry },
            ignored: IGNORED.iter().map(|flag| flag.name).filter(|name| find(name).is_some()).collect(),
        })
    }
}

pub(super) fn bad(given: Option<&Sourced>, why: &str) -> CliError {
    let (source, value) = given.cloned().unwrap_or_default();
    let value: String = value.chars().take(60).collect();
    CliError::Usage(format!("{source}: {value:?} {why}"))
}

fn number(given: Option<&Sourced>, default: usize, least: usize, most: usize) -> Result<usize, CliError> {
    let Some((_, value)) = given else { return Ok(default) };
    value
        .parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| bad(given, &format!("is not a valid number; use {least} to {most}")))
}

const NO_NAMESPACE: &str =
    "is not a valid namespace name; use at most 63 lowercase letters, digits and '-', starting and ending with a letter or digit";

fn is_namespace(name: &str) -> bool {
    name.len() <= LABEL_MAX && !name.contains('.') && is_subdomain(name)
}

/// Names between commas, with or without spaces around them.
fn namespaces(given: Option<&Sourced>) -> Result<Vec<String>, CliError> {
    let Some((source, value)) = given else { return Ok(Vec::new()) };
    let mut names: Vec<String> = Vec::new();
    for name in value.split(',').map(str::trim) {
        let why = if name.is_empty() {
            "is not a valid namespace name; separate names with single commas, for example a,b"
        } else if !is_namespace(name) {
            NO_NAMESPACE
        } else if names.iter().any(|other| other == name) {
            "is listed twice"
        } else {
            names.push(name.to_owned());
            continue;
        };
        return Err(bad(Some(&(source.clone(), name.to_owned())), why));
    }
    Ok(names)
}

pub(super) fn boolean(given: Option<&Sourced>) -> Result<bool, CliError> {
    match given.map(|(_, value)| value.as_str()) {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(bad(given, "is not a valid boolean; use true or false")),
    }
}

fn log_level(given: Option<&Sourced>) -> Result<LevelFilter, CliError> {
    let Some((_, value)) = given else { return Ok(LevelFilter::Info) };
    let word = if value == "warning" { "warn" } else { value };
    word.parse()
        .ok()
        .filter(|_| crate::log::LEVELS.contains(&word))
        .ok_or_else(|| bad(given, "is not a valid level; use error, warn, info, debug or trace"))
}

fn log_format(given: Option<&Sourced>) -> Result<Format, CliError> {
    let Some((_, value)) = given else { return Ok(Format::default()) };
    Format::parse(value).ok_or_else(|| bad(given, "is not a valid log format; use text or json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Flags, String> {
        let variable = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Flags::parse(arguments.iter().map(OsString::from).collect(), &variable)
            .map_err(|error| error.message().unwrap_or_default().into_owned())
    }

    #[test]
    fn the_command_line_comes_before_the_environment_and_that_before_defaults() {
        let flags = parse(&[], &[]).expect("defaults are valid");
        assert_eq!(
            (flags.monitored_id.as_str(), flags.max_workers, flags.log_level, flags.apply_crd),
            ("default", 8, LevelFilter::Info, false)
        );
        let environment = [("MONITORED_ID", "env"), ("MAX_WORKERS", "2"), ("APPLY_CRD", "true")];
        let flags = parse(&["--monitored-id", "flag", "-l", "debug"], &environment).expect("valid");
        assert_eq!(
            (flags.monitored_id.as_str(), flags.max_workers, flags.log_level, flags.apply_crd),
            ("flag", 2, LevelFilter::Debug, true)
        );
        assert_eq!(flags.log_format, Format::Text);
        for (arguments, environment) in [(&["--log-format=json"][..], &[("LOG_FORMAT", "text")][..]), (&[], &[("LOG_FORMAT", "json")])] {
            assert_eq!(parse(arguments, environment).expect("valid").log_format, Format::Json);
        }
        assert!(parse(&["--apply-crd"], &[]).expect("valid").apply_crd);
        assert!(!parse(&["--apply-crd=false"], &[("APPLY_CRD", "true")]).expect("valid").apply_crd);
    }

    #[test]
    fn the_image_is_whole_or_made_of_parts() {
        let image = |arguments: &[&str]| parse(arguments, &[]).expect("valid").sidecar.image;
        assert_eq!(image(&["--image", "r/x:1", "-t", "2"]), "r/x:1");
        assert_eq!(image(&["-o", "org", "-r", "repo", "-t", "2"]), "org/repo:2");
        // What is not used may be of any form.
        assert_eq!(image(&["--image", "r/x:1", "-o=", "-r", "a b", "--docker-image-tag="]), "r/x:1");
        assert!(image(&[]).starts_with("quarks-job:"));
    }

    #[test]
    fn what_pods_get_is_as_ever_unless_it_is_said() {
        let SidecarSettings { user, resources, volume, .. } = parse(&[], &[]).expect("valid").sidecar;
        let usual = json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}});
        assert_eq!((user, json!(resources), json!(volume)), (SidecarUser::Auto, usual, json!({})));
        let environment =
            [("SIDECAR_USER", "none"), ("SIDECAR_RESOURCES", "memory=16Mi:"), ("OUTPUT_SIZE_LIMIT", "1Gi"), ("OUTPUT_MEDIUM", "Memory")];
        let SidecarSettings { user, resources, volume, .. } = parse(&["--output-size-limit=64Mi"], &environment).expect("valid").sidecar;
        let expected = json!({"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"cpu": "100m"}});
        assert_eq!(
            (user, json!(resources), json!(volume)),
            (SidecarUser::Unset, expected, json!({"sizeLimit": "64Mi", "medium": "Memory"}))
        );
    }

    #[test]
    fn namespaces_are_named_once_each() {
        let flags = parse(&["--watch-namespaces", "a , b-1"], &[]).expect("valid");
        assert_eq!(
            (flags.watch_namespaces, flags.sidecar_service_account.as_str()),
            (vec!["a".into(), "b-1".into()], "quarks-job-sidecar")
        );
        let flags = parse(&["--sidecar-service-account", "s.x"], &[("WATCH_NAMESPACES", "a")]).expect("valid");
        assert_eq!(flags.sidecar_service_account, "s.x");
        assert!(parse(&[], &[("WATCH_NAMESPACES", "")]).expect("valid").watch_namespaces.is_empty());
        for (arguments, environment, expected) in [
            (&["--watch-namespaces", "a,,b"][..], &[][..], "--watch-namespaces: \"\" is not a valid namespace name"),
            (&["--watch-namespaces", ""], &[], "--watch-namespaces: \"\" is not a valid"),
            (&[], &[("WATCH_NAMESPACES", "a,")], "WATCH_NAMESPACES: \"\" is not a valid"),
            (&[], &[("WATCH_NAMESPACES", "a, b ,a")], "WATCH_NAMESPACES: \"a\" is listed twice"),
            (&["--watch-namespaces", "a b"], &[], "--watch-namespaces: \"a b\" is not a valid namespace name"),
            (&["--watch-namespaces", "a.b"], &[], "\"a.b\" is not a valid namespace name"),
            (&["--watch-namespaces", "A"], &[], "\"A\" is not a valid namespace name"),
            (&["--sidecar-service-account", "s"], &[], "--sidecar-service-account: requires --watch-namespaces"),
            (
                &["--watch-namespaces=a", "--sidecar-service-account", "S"],
                &[],
                "--sidecar-service-account: \"S\" is not a valid service account name",
            ),
        ] {
            let error = parse(arguments, environment).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        let long = "a".repeat(64);
        assert!(parse(&["--watch-namespaces", &long], &[]).is_err());
        assert!(parse(&["--watch-namespaces", &long[1..]], &[]).is_ok());
    }

    #[test]
    fn an_address_that_is_empty_is_none() {
        for (arguments, expected) in [(&["--http-listen="][..], None), (&["--http-listen", ":8080"], Some(":8080")), (&[], None)] {
            assert_eq!(parse(arguments, &[]).expect("valid").http_listen.as_deref(), expected);
        }
    }

    #[test]
    fn flags_of_the_original_that_do_nothing_are_named() {
        assert_eq!(parse(&["--meltdown-duration", "60"], &[]).expect("valid").ignored, ["meltdown-duration"]);
    }

    #[test]
    fn an_election_has_the_times_of_kubernetes_components() {
        let seconds = |flags: &Flags| [flags.election.lease, flags.election.renew, flags.election.retry].map(|limit| limit.as_secs());
        let flags = parse(&[], &[]).expect("valid");
        assert_eq!((flags.leader_elect, seconds(&flags)), (false, [15, 10, 2]));
        let flags =
            parse(&["--leader-elect", "--leader-elect-lease-duration=60s"], &[("LEADER_ELECT_RENEW_DEADLINE", "40")]).expect("valid");
        assert_eq!((flags.leader_elect, seconds(&flags)), (true, [60, 40, 2]));
        assert!(parse(&[], &[("LEADER_ELECT", "true")]).expect("valid").leader_elect);
        assert!(!parse(&["--leader-elect=false"], &[("LEADER_ELECT", "true")]).expect("valid").leader_elect);
    }

    #[test]
    fn bad_values_name_their_source() {
        for (arguments, environment, expected) in [
            (&["--max-workers", "0"][..], &[][..], "--max-workers"),
            (&[], &[("MAX_WORKERS", "many")], "MAX_WORKERS"),
            (&["--log-level", "loud"], &[], "--log-level"),
            (&["--log-level", "off"], &[], "--log-level"),
            (&["--log-format", "JSON"], &[], "--log-format"),
            (&[], &[("LOG_FORMAT", "xml")], "LOG_FORMAT"),
            (&[], &[("APPLY_CRD", "yes")], "APPLY_CRD"),
            (&["--docker-image-pull-policy", "x"], &[], "--docker-image-pull-policy"),
            (&["--monitored-id", "a b"], &[], "--monitored-id"),
            (&["--nonsense"], &[], "--nonsense"),
            (&["--context"], &[], "--context"),
            (&["-l", "info", "extra"], &[], "extra"),
            (&["--leader-elect=maybe"], &[], "--leader-elect"),
            (&[], &[("LEADER_ELECT_RETRY_PERIOD", "0")], "LEADER_ELECT_RETRY_PERIOD"),
            (&["--leader-elect-renew-deadline=15"], &[], "--leader-elect-renew-deadline"),
            (&["--leader-elect-retry-period=10"], &[], "--leader-elect-retry-period"),
            (&["--sidecar-user=me"], &[], "--sidecar-user: \"me\" is not a valid user; use auto, none, UID or UID:GID"),
            (&[], &[("SIDECAR_USER", "-1")], "SIDECAR_USER: \"-1\" is not a valid user"),
            (
                &["--sidecar-resources=cpu=5m:1,memory=8Mi"],
                &[],
                "--sidecar-resources: \"memory=8Mi\" is not a valid resource; use KIND=REQUEST:LIMIT, for example cpu=5m:100m",
            ),
            (&[], &[("SIDECAR_RESOURCES", "cpu=2:1")], "SIDECAR_RESOURCES: \"cpu=2:1\" requests more than its limit"),
            (
                &["--output-size-limit=0"],
                &[],
                "--output-size-limit: \"0\" is not a valid size; use a whole number of bytes, at least 1, for example 64Mi",
            ),
            (&["--output-size-limit=100m"], &[], "--output-size-limit: \"100m\" is not a valid size"),
            (&["--output-size-limit=1.5"], &[], "\"1.5\" is not a valid size"),
            (&["--output-size-limit=-64Mi"], &[], "\"-64Mi\" is not a valid size"),
            (&["--output-size-limit="], &[], "\"\" is not a valid size"),
            (&["--sidecar-resources=cpu=1:,cpu=:2"], &[], "--sidecar-resources: \"cpu=:2\" repeats a resource; list each once"),
            (
                &["--http-listen=foo"],
                &[],
                "--http-listen: \"foo\" is not a valid address; use HOST:PORT, [IPv6]:PORT or :PORT, for example :8080",
            ),
            (&[], &[("HTTP_LISTEN", "8080")], "HTTP_LISTEN: \"8080\" is not a valid address"),
            (&["--image="], &[], "--image: \"\" is not a valid part of an image name such as registry.example/org/quarks-job:1.0"),
            (&["--image=a b"], &[], "--image: \"a b\" is not a valid part"),
            (&["--docker-image-org="], &[], "--docker-image-org: \"\" is not a valid part"),
            (&[], &[("DOCKER_IMAGE_REPOSITORY", "a ")], "DOCKER_IMAGE_REPOSITORY: \"a \" is not a valid part"),
            (&["-t", "a\nb"], &[], "--docker-image-tag: \"a\\nb\" is not a valid part"),
            (&["--image-pull-secret=a b"], &[], "--image-pull-secret: \"a b\" is not a valid Secret name"),
            (&[], &[("OUTPUT_SIZE_LIMIT", "64MB")], "OUTPUT_SIZE_LIMIT: \"64MB\" is not a valid size"),
            (&[], &[("OUTPUT_MEDIUM", "memory")], "OUTPUT_MEDIUM: \"memory\" is not a valid medium; use Memory"),
        ] {
            let error = parse(arguments, environment).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
