//! From a mapped file or log to the Secrets that it becomes.

use std::path::Path;
use std::sync::Arc;

use crate::contract::plan::Plan;
use crate::persist::secret::data::Data;
use crate::persist::secret::desired::{Desired, Marks, Source};
use crate::persist::secret::names::{base_name, check_free};

use super::document;
use super::fault::Fault;
use super::files;

/// Reads and checks one file. Any error means that nothing of the file is stored.
pub fn read_file(
    root: &Path,
    plan: &Plan,
    index: Option<u32>,
    container: &str,
    file: &str,
    documents: usize,
) -> Result<Vec<Desired>, Fault> {
    let planned = plan.containers.get(container).and_then(|container_plan| Some((container_plan, container_plan.files.get(file)?)));
    let Some((container_plan, secret_plan)) = planned else { return Ok(Vec::new()) };
    let source = Source { plan, container, container_plan, secret_plan };
    let marks = Marks::build(&source).map_err(Fault::Rule)?;
    let base = base_name(secret_plan, index);
    let bytes = files::read(root, container, file).map_err(Fault::File)?;
    if secret_plan.fan_out {
        let entries = document::parse_fan_out(&bytes, documents).map_err(Fault::Document)?;
        drop(bytes);
        let build = |(key, data)| build(&source, index, &marks, format!("{base}-{key}"), data);
        return entries.into_iter().map(build).collect();
    }
    let document = document::parse(&bytes, documents).map_err(Fault::Document)?;
    drop(bytes);
    Ok(vec![build(&source, index, &marks, base, document)?])
}

/// Checks a container's log: the whole of it is one document, since each start of a container has a log of its own.
pub fn read_log(plan: &Plan, index: Option<u32>, container: &str, bytes: Vec<u8>) -> Result<Vec<Desired>, Fault> {
    let planned = plan.containers.get(container).and_then(|container_plan| Some((container_plan, container_plan.log.as_ref()?)));
    let Some((container_plan, secret_plan)) = planned else { return Ok(Vec::new()) };
    let source = Source { plan, container, container_plan, secret_plan };
    let marks = Marks::build(&source).map_err(Fault::Rule)?;
    let document = document::parse(&bytes, 1).map_err(Fault::Log)?;
    drop(bytes);
    Ok(vec![build(&source, index, &marks, base_name(secret_plan, index), document)?])
}

fn build(source: &Source<'_>, index: Option<u32>, marks: &Arc<Marks>, name: String, data: Data) -> Result<Desired, Fault> {
    check_free(source, index, &name).map_err(Fault::Taken)?;
    Desired::build(source, marks, name, data).map_err(Fault::Rule)
}
