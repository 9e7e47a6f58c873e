//! The sidecars' credential: in each namespace with runs that have output, one Secret with a token of the account that
//! the namespace names. The token is bound to that Secret and dies with it, lives an hour at most and is renewed at
//! half its life; the kubelet brings the new one into running pods.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use log::{debug, info, warn};
use serde::Deserialize;
use serde_json::json;

use crate::api::{ObjectKey, ObjectMeta, Resource, Secret, StringMap, TOKEN_SECRET, Uid};
use crate::clock;
use crate::index::SharedIndex;
use crate::kube::{Client, Error, Request};
use crate::shutdown::Shutdown;

use super::action::Action;
use super::trouble::remedy;

/// Life of a token in seconds: the spec's limit. The API server may give less.
const TOKEN_SECONDS: u32 = 3_600;
/// A namespace without runs with output loses its token after this long.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked, in memory, whether a token is due. No request is made unless one is.
const TICK: Duration = Duration::from_secs(5);
/// A token that was not renewed is tried again after this long; it has half of its life before it.
const RENEW_RETRY: Duration = Duration::from_secs(60);
/// A Secret that this process made is believed to be there for this long.
const TRUST_LIMIT: Duration = Duration::from_secs(60);

/// Annotation on the Secret: the account. It also says that the Secret is ours.
const ANNOTATION_ACCOUNT: &str = "quarks.cloudfoundry.org/token-account";
/// Annotation on the Secret: when the token ends, RFC 3339.
const ANNOTATION_EXPIRES: &str = "quarks.cloudfoundry.org/token-expires";

/// Why a namespace has no token.
#[derive(Debug)]
pub enum CredentialError {
    /// For now; trying again may help.
    Api(Error),
    /// Someone has to do something: what, in one sentence.
    NotReady(String),
}

/// A token that is in its Secret.
#[derive(Clone, Debug)]
struct Held {
    account: String,
    secret: Uid,
    /// From then on it is of no use for a new run.
    renew_at: Instant,
    /// A renewal that did not work is not tried again before.
    retry_at: Instant,
    /// When the Secret was last seen or written.
    seen_at: Instant,
    used_at: Instant,
}

type Slot = Arc<Mutex<Option<Held>>>;

/// The tokens of all namespaces.
#[derive(Debug, Default)]
pub struct Credentials(Mutex<HashMap<String, Slot>>);

#[derive(Deserialize)]
struct TokenRequest {
    status: TokenStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenStatus {
    token: String,
    expiration_timestamp: String,
}

impl Credentials {
    /// Returns when the namespace's Secret holds a token of `account` that lives for a good while.
    pub fn ensure(&self, client: &Client, index: &SharedIndex, namespace: &str, account: &str) -> Result<(), CredentialError> {
        let slot = self.slot(namespace);
        let mut held = lock(&slot);
        let now = Instant::now();
        if let Some(held) = held.as_mut()
            && held.account == account
            && now < held.renew_at
            && now.duration_since(held.seen_at) < TRUST_LIMIT
        {
            held.used_at = now;
            return Ok(());
        }
        *held = Some(obtain(client, index, namespace, account)?);
        Ok(())
    }

    /// Renews and removes; runs on a thread of its own until the shutdown.
    pub fn run(&self, client: &Client, index: &SharedIndex, shutdown: &Shutdown) {
        let mut adopted = Vec::new();
        while !shutdown.wait(TICK) {
            self.adopt(client, index, &mut adopted);
            let namespaces: Vec<String> = self.lock_all().keys().cloned().collect();
            for namespace in namespaces {
                self.tend(client, index, &namespace);
            }
        }
    }

    /// Takes over what another process left, once in each namespace that has become ours.
    fn adopt(&self, client: &Client, index: &SharedIndex, adopted: &mut Vec<String>) {
        let namespaces = index.read().monitored_with_account();
        for (namespace, account) in &namespaces {
            // The index gives them in order.
            if adopted.binary_search(namespace).is_ok() {
                continue;
            }
            let slot = self.slot(namespace);
            let mut held = lock(&slot);
            if held.is_none()
                && let Ok(Some(secret)) = read(client, namespace)
            {
                *held = usable(&secret, account).or_else(|| due_now(&secret));
            }
        }
        *adopted = namespaces.into_iter().map(|(namespace, _)| namespace).collect();
    }

    fn tend(&self, client: &Client, index: &SharedIndex, namespace: &str) {
        let slot = self.slot(namespace);
        let mut held = lock(&slot);
        let Some(current) = held.as_mut() else { return };
        let now = Instant::now();
        let account = {
            let index = index.read();
            if index.is_out_of_reach(namespace) {
                debug!("token left alone namespace={namespace}");
                *held = None;
                drop(held);
                self.lock_all().remove(namespace);
                return;
            }
            if index.has_unfinished_output(namespace) {
                current.used_at = now;
            }
            // A run that has begun keeps its credential to its end, whatever becomes of the labels.
            index.monitored(namespace).and_then(|monitored| monitored.service_account.clone()).unwrap_or_else(|| current.account.clone())
        };
        let is_idle = now.duration_since(current.used_at) >= IDLE_LIMIT;
        if is_idle {
            let key = ObjectKey::new(namespace, TOKEN_SECRET);
            match client.call_unit(&Action::DeleteSecret { key: &key, uid: &current.secret }.request()) {
                Err(error) if error.is_transient() => return debug!("token secret not deleted namespace={namespace} error={error}"),
                Err(error) if !error.is_not_found() && !error.is_conflict() => {
                    warn!("token secret not deleted namespace={namespace} error={error}")
                }
                _ => info!("token secret deleted namespace={namespace}"),
            }
            *held = None;
            drop(held);
            self.lock_all().remove(namespace);
        } else if now >= current.renew_at && now >= current.retry_at {
            match obtain(client, index, namespace, &account) {
                Ok(fresh) => *held = Some(fresh),
                Err(error) => {
                    current.retry_at = now + RENEW_RETRY;
                    match error {
                        CredentialError::Api(error) => warn!("token not renewed namespace={namespace} error={error}"),
                        CredentialError::NotReady(message) => warn!("token not renewed namespace={namespace} message={message:?}"),
                    }
                }
            }
        }
    }

    fn slot(&self, namespace: &str) -> Slot {
        Arc::clone(self.lock_all().entry(namespace.to_owned()).or_default())
    }

    fn lock_all(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Held>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(client: &Client, namespace: &str) -> Result<Option<Secret>, Error> {
    match client.call::<Secret>(&Request::get(Resource::SECRETS, &ObjectKey::new(namespace, TOKEN_SECRET))) {
        Ok(secret) => Ok(Some(secret)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The Secret's token, if it is of `account` and has more than half of its life before it.
fn usable(secret: &Secret, account: &str) -> Option<Held> {
    let annotations = &secret.metadata.annotations;
    if annotations.get(ANNOTATION_ACCOUNT).map(String::as_str) != Some(account) || !secret.data.contains_key("token") {
        return None;
    }
    let left = clock::seconds_until(annotations.get(ANNOTATION_EXPIRES)?)? - i64::from(TOKEN_SECONDS) / 2;
    let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
    Some(held(account, &secret.metadata.uid, Duration::from_secs(left)))
}

/// A Secret of ours whose token is of no use any more: renewed or removed at the next look.
fn due_now(secret: &Secret) -> Option<Held> {
    let account = secret.metadata.annotations.get(ANNOTATION_ACCOUNT)?;
    Some(held(account, &secret.metadata.uid, Duration::ZERO))
}

fn held(account: &str, secret: &Uid, renew_in: Duration) -> Held {
    let now = Instant::now();
    Held { account: account.to_owned(), secret: secret.clone(), renew_at: now + renew_in, retry_at: now, seen_at: now, used_at: now }
}

fn obtain(client: &Client, index: &SharedIndex, namespace: &str, account: &str) -> Result<Held, CredentialError> {
    let key = ObjectKey::new(namespace, TOKEN_SECRET);
    let refused = |error: Error| refusal(error, &remedy(index, namespace), account);
    let found = match read(client, namespace).map_err(refused)? {
        Some(secret) => secret,
        None => match client.call::<Secret>(&Action::CreateSecret(&empty_secret(namespace, account)).request()) {
            Ok(secret) => secret,
            // Another operator was faster, or an answer was lost.
            Err(error) if error.is_already_exists() => read(client, namespace).map_err(refused)?.ok_or(CredentialError::Api(error))?,
            Err(error) => return Err(refused(error)),
        },
    };
    if let Some(held) = usable(&found, account) {
        return Ok(held);
    }
    if !found.metadata.annotations.contains_key(ANNOTATION_ACCOUNT) {
        let message = format!("Secret {key} exists and is not the operator's; delete or rename it: the sidecar's token goes there");
        return Err(CredentialError::NotReady(message));
    }
    let account_key = ObjectKey::new(namespace, account);
    let uid = &found.metadata.uid;
    let request = Action::RequestToken { account: &account_key, secret: TOKEN_SECRET, secret_uid: uid, seconds: TOKEN_SECONDS }.request();
    let TokenRequest { status } = client.call(&request).map_err(refused)?;
    let annotations = json!({ANNOTATION_ACCOUNT: account, ANNOTATION_EXPIRES: status.expiration_timestamp});
    let token = STANDARD.encode(&status.token);
    client.call_unit(&Action::StoreToken { key: &key, uid, token: &token, annotations: &annotations }.request()).map_err(refused)?;
    info!("token stored namespace={namespace} account={account} expires={}", status.expiration_timestamp);
    let life = clock::seconds_until(&status.expiration_timestamp).and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    Ok(held(account, uid, Duration::from_secs(life / 2)))
}

fn empty_secret(namespace: &str, account: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: TOKEN_SECRET.to_owned(),
            namespace: namespace.to_owned(),
            annotations: StringMap::from([(ANNOTATION_ACCOUNT.to_owned(), account.to_owned())]),
            ..ObjectMeta::default()
        },
        kind: "Opaque".to_owned(),
        ..Secret::default()
    }
}

fn refusal(error: Error, remedy: &str, account: &str) -> CredentialError {
    if error.is_forbidden() {
        CredentialError::NotReady(format!(
            "the operator may not make the sidecar's token: {}; the manifests grant it for account quarks-job-sidecar; run: {remedy}",
            error.message()
        ))
    } else if error.is_not_found() {
        CredentialError::NotReady(format!(
            "service account {account:?}, which label quarks.cloudfoundry.org/qjob-service-account of the namespace (or --sidecar-service-account) names, does not exist; the manifests make and grant quarks-job-sidecar; run: {remedy}"
        ))
    } else {
        CredentialError::Api(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(account: &str, expires: &str, has_token: bool) -> Secret {
        let mut secret = empty_secret("ns", account);
        secret.metadata.annotations.insert(ANNOTATION_EXPIRES.to_owned(), expires.to_owned());
        if has_token {
            secret.data.insert("token".to_owned(), "eA==".to_owned());
        }
        secret
    }

    #[test]
    fn a_token_is_used_again_only_with_half_of_its_life_before_it() {
        let far = "2999-01-01T00:00:00Z";
        assert!(usable(&secret("a", far, true), "a").is_some());
        assert!(usable(&secret("a", far, true), "b").is_none());
        assert!(usable(&secret("a", far, false), "a").is_none());
        assert!(usable(&secret("a", &clock::now_seconds(), true), "a").is_none());
        assert!(usable(&secret("a", "later", true), "a").is_none());
        assert!(usable(&Secret::default(), "a").is_none());
    }
}
