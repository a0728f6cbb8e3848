//! `mimeo clone activate` and `mimeo clone unstage`.

use anyhow::Result;
use hyper::Method;

use super::client::Client;
use super::output::{Output, count};
use crate::admin::types::{ActivatedInfo, ActivationList, Remove, Removed};

const PATH: &str = "/v1/activations";

pub(super) async fn activate(which: Remove, client: &mut Client, output: &mut Output) -> Result<()> {
    let list: ActivationList = client.send(Method::POST, PATH, &which).await?;
    output.show(&list, |list| list.clones.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    let left = list.clones.iter().filter(|clone| clone.error.is_some()).count() as u64;
    anyhow::ensure!(left == 0, "{} of {} was not switched", count(left, "clone"), list.clones.len());
    Ok(())
}

fn line(clone: &ActivatedInfo) -> String {
    let ActivatedInfo { name, version, operation, error, .. } = clone;
    match (operation, error) {
        (Some(operation), _) => format!("{operation}: clone {name} shows {version}"),
        (None, Some(error)) => format!("clone {name} still shows {version}: {error}"),
        (None, None) => format!("clone {name} shows {version}"),
    }
}

pub(super) async fn unstage(which: Remove, client: &mut Client, output: &mut Output) -> Result<()> {
    let removed: Removed = client.send(Method::DELETE, PATH, &which).await?;
    output.show(&removed, |removed| format!("withdrew the switch of {}", count(removed.names.len() as u64, "clone")))
}
