//! The key for the digests of a namespace: random, in its own Secret, never mounted. Losing it costs a baseline, not a run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use log::info;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::api::{CONFIG_KEY_SECRET, ObjectKey, ObjectMeta, Resource, ResourceVersion, Secret, StringMap};
use crate::controller::shared::action::Action;
use crate::kube::{Client, Request};

use super::digest::ConfigKey;
use super::error::LookError;

/// Bytes of a key: as many as the digest has.
const LENGTH: usize = 32;
/// Type of the Secret; it says that the Secret is ours.
const TYPE: &str = "quarks.cloudfoundry.org/config-key";
/// The Secret's only key.
const FIELD: &str = "key";

/// The key of the namespace, made if there is none, and the version of its Secret.
pub fn obtain(client: &Client, namespace: &str) -> Result<(ConfigKey, ResourceVersion), LookError> {
    let key = ObjectKey::new(namespace, CONFIG_KEY_SECRET);
    let read = || client.call::<Secret>(&Request::get(Resource::SECRETS, &key));
    let secret = match read() {
        Err(error) if error.is_not_found() => match client.call::<Secret>(&Action::CreateSecret(&fresh(namespace)?).request()) {
            // Someone else was quicker: theirs counts.
            Err(error) if error.is_already_exists() => read()?,
            created => {
                let created = created?;
                info!(namespace:%; "key for config digests created");
                created
            }
        },
        found => found?,
    };
    let bytes = secret.data.get(FIELD).and_then(|text| STANDARD.decode(text).ok()).filter(|bytes| bytes.len() == LENGTH);
    match bytes {
        Some(bytes) if secret.kind == TYPE => Ok((ConfigKey::new(&bytes), secret.metadata.resource_version)),
        _ => Err(LookError::NotReady(format!(
            "Secret {key} does not belong to the operator, which needs this name for its config digest key; delete it or move it to another name"
        ))),
    }
}

fn fresh(namespace: &str) -> Result<Secret, LookError> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).map_err(|_| LookError::NotReady("the system provides no random numbers".to_owned()))?;
    Ok(Secret {
        metadata: ObjectMeta { name: CONFIG_KEY_SECRET.to_owned(), namespace: namespace.to_owned(), ..ObjectMeta::default() },
        data: StringMap::from([(FIELD.to_owned(), STANDARD.encode(bytes))]),
        kind: TYPE.to_owned(),
        immutable: Some(true),
    })
}
