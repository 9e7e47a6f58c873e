//! The calls that a step makes, and what their answers mean for the token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use crate::api::{ObjectKey, ObjectMeta, Resource, SIDECAR_ACCOUNT, Secret, StringMap, TOKEN_SECRET};
use crate::controller::shared::action::Action;
use crate::controller::shared::trouble::remedy;
use crate::index::SharedIndex;
use crate::kube::pages::{Listed, list_all};
use crate::kube::{self, Client, Error, Request};
use crate::views::JobView;

use super::error::CredentialError;
use super::held::TOKEN_SECONDS;
use super::state::{Answer, ListedJob, Step, Token};

/// Annotation on the Secret: the account. It also says that the Secret is ours.
const ANNOTATION_ACCOUNT: &str = "quarks.cloudfoundry.org/token-account";
/// Annotation on the Secret: when the token ends, RFC 3339. For people: the wall clock decides nothing.
const ANNOTATION_EXPIRES: &str = "quarks.cloudfoundry.org/token-expires";

#[derive(Deserialize)]
struct TokenRequest {
    #[serde(default)]
    spec: TokenSpec,
    status: TokenStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenSpec {
    #[serde(default)]
    expiration_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenStatus {
    token: String,
    #[serde(default)]
    expiration_timestamp: String,
}

/// A Secret without its content.
#[derive(Deserialize)]
struct Metadata {
    metadata: ObjectMeta,
}

/// Makes the call of a step. Of those without one nothing comes.
pub(super) fn carry_out(client: &Client, index: &SharedIndex, namespace: &str, step: &Step) -> (Answer, Option<CredentialError>) {
    let key = ObjectKey::new(namespace, TOKEN_SECRET);
    let result = match step {
        Step::Look => look(client, &key),
        Step::Create(account) => create(client, namespace, account),
        Step::Request { account, secret } => {
            let account = ObjectKey::new(namespace, account.as_str());
            let action = Action::RequestToken { account: &account, secret: TOKEN_SECRET, secret_uid: secret, seconds: TOKEN_SECONDS };
            client.call(&action.request()).map(|TokenRequest { spec, status }| Answer::Issued {
                token: Token(status.token),
                seconds: spec.expiration_seconds,
                expires: status.expiration_timestamp,
            })
        }
        Step::Store { secret, account, token: Token(token), expires } => {
            let annotations = json!({ANNOTATION_ACCOUNT: account, ANNOTATION_EXPIRES: expires});
            let token = STANDARD.encode(token);
            let action = Action::StoreToken { key: &key, uid: secret, token: &token, annotations: &annotations };
            client.call(&action.request()).map(|Metadata { metadata }| Answer::Stored(metadata.resource_version))
        }
        Step::ListJobs => list_jobs(client, namespace),
        Step::Delete(secret) => match client.call_unit(&Action::DeleteSecret { key: &key, uid: secret }.request()) {
            Err(error) if error.is_not_found() => Ok(Answer::Deleted),
            result => result.map(|()| Answer::Deleted),
        },
        Step::Wait(_) | Step::Busy | Step::Over => return (Answer::Failed, None),
    };
    match result {
        Ok(answer) => (answer, None),
        Err(error) => {
            let answer = match step {
                _ if is_changed(step, &error) => Answer::Changed,
                Step::Request { .. } if error.is_not_found() => Answer::NoAccount,
                _ => Answer::Failed,
            };
            (answer, Some(refusal(step, error, &remedy(index, namespace))))
        }
    }
}

/// The Secret is gone, or another one by now.
fn is_changed(step: &Step, error: &Error) -> bool {
    let is_about_secret = || error.status().is_some_and(|status| status.details.name == TOKEN_SECRET);
    match step {
        Step::Create(_) => error.is_already_exists(),
        Step::Request { .. } => error.is_conflict() || error.is_not_found() && is_about_secret(),
        Step::Store { .. } => error.is_conflict() || error.is_not_found(),
        Step::Delete(_) => error.is_conflict(),
        Step::Look | Step::ListJobs | Step::Wait(_) | Step::Busy | Step::Over => false,
    }
}

fn look(client: &Client, key: &ObjectKey) -> Result<Answer, Error> {
    match client.call::<Metadata>(&Request::get(Resource::SECRETS, key).metadata_only()) {
        Ok(Metadata { mut metadata }) => {
            let account = metadata.annotations.remove(ANNOTATION_ACCOUNT);
            Ok(Answer::Found { secret: metadata.uid, version: metadata.resource_version, account })
        }
        Err(error) if error.is_not_found() => Ok(Answer::Absent),
        Err(error) => Err(error),
    }
}

fn create(client: &Client, namespace: &str, account: &str) -> Result<Answer, Error> {
    let secret = Secret {
        metadata: ObjectMeta {
            name: TOKEN_SECRET.to_owned(),
            namespace: namespace.to_owned(),
            annotations: StringMap::from([(ANNOTATION_ACCOUNT.to_owned(), account.to_owned())]),
            ..ObjectMeta::default()
        },
        kind: "Opaque".to_owned(),
        ..Secret::default()
    };
    let Metadata { metadata } = client.call(&Action::CreateSecret(&secret).request())?;
    Ok(Answer::Created { secret: metadata.uid, account: account.to_owned() })
}

/// Jobs of QuarksJobs, as the API server knows them now. By their owners: our label may have been removed.
fn list_jobs(client: &Client, namespace: &str) -> Result<Answer, Error> {
    let mut jobs = Vec::new();
    list_all(client, Request::list(Resource::JOBS, namespace), &mut |listed| {
        match listed {
            Listed::Begin => jobs.clear(),
            Listed::Object(json) => {
                let JobView { key, owner, record, end, .. } = crate::json::from_slice::<JobView>(json)?;
                if let Some((_, owner)) = owner {
                    let is_without_output = record.is_some_and(|record| !record.output);
                    jobs.push(ListedJob { name: key.name.to_string(), owner, is_without_output, has_ended: end.is_some() });
                }
            }
        }
        Ok(())
    })?;
    Ok(Answer::Jobs(jobs))
}

fn refusal(step: &Step, error: Error, remedy: &str) -> CredentialError {
    match step {
        Step::Request { account, .. } if error.answer() == kube::Answer::MissingRight && account != SIDECAR_ACCOUNT => {
            CredentialError::NotReady(format!(
                "the operator may not create a token for service account {account:?}, which namespace label quarks.cloudfoundry.org/qjob-service-account or --sidecar-service-account sets: {}; set it to {SIDECAR_ACCOUNT}, for which the manifests grant this right, or grant it; run: {remedy}",
                error.message()
            ))
        }
        _ if error.answer() == kube::Answer::MissingRight => CredentialError::NotReady(format!(
            "the operator may not create a token for the sidecar: {}; the manifests grant this for service account {SIDECAR_ACCOUNT}; run: {remedy}",
            error.message()
        )),
        Step::Request { account, .. } if error.is_not_found() => CredentialError::NotReady(format!(
            "service account {account:?} does not exist; it is set by namespace label quarks.cloudfoundry.org/qjob-service-account or --sidecar-service-account; the manifests create {SIDECAR_ACCOUNT}; run: {remedy}"
        )),
        _ => CredentialError::Api(error),
    }
}
