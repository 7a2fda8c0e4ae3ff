//! Which place is meant.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::bail;
use clap::Args;

use super::{Place, api::Api, folder::Folder, role::Role};
use crate::{control, source::kubernetes::Connect, state};

const HEADING: &str = "Where the objects are";
/// Where control sockets are looked for.
const RUN_DIR: &str = "/run/enforcer";
/// What a pod's service account is told by.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Until an API server that says nothing counts as gone.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Args, Clone, Debug, Default)]
pub struct PlaceArgs {
    /// A folder of YAML
    #[arg(long, help_heading = HEADING, value_name = "DIR", value_hint = clap::ValueHint::DirPath, conflicts_with_all = ["socket", "run_dir", "kubeconfig", "context"])]
    pub manifests: Option<PathBuf>,
    /// The controller's state file, for status [default: DIR.state.json]
    #[arg(long, help_heading = HEADING, value_name = "FILE", value_hint = clap::ValueHint::FilePath, requires = "manifests")]
    pub state: Option<PathBuf>,
    /// A role's control socket, to look at objects as it sees them
    #[arg(long, help_heading = HEADING, value_name = "PATH", value_hint = clap::ValueHint::FilePath, conflicts_with_all = ["kubeconfig", "context"])]
    pub socket: Option<PathBuf>,
    /// Where to look for control sockets [default: /run/enforcer]
    #[arg(long, help_heading = HEADING, value_name = "DIR", value_hint = clap::ValueHint::DirPath, conflicts_with_all = ["kubeconfig", "context"])]
    pub run_dir: Option<PathBuf>,
    /// kubeconfig of an API server [default: $KUBECONFIG, ~/.kube/config, the pod's service account]
    #[arg(long, help_heading = HEADING, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, help_heading = HEADING, value_name = "NAME")]
    pub context: Option<String>,
}

/// Which one it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Which {
    Folder,
    Role,
    Api,
}

impl PlaceArgs {
    /// The place that the flags name; without one the API server of the kubeconfig, else the role that runs here.
    pub fn choose(&self) -> anyhow::Result<Box<dyn Place>> {
        self.choose_within(PATIENCE)
    }

    /// The same for somebody who does not wait longer than this for each answer.
    pub fn choose_within(&self, patience: Duration) -> anyhow::Result<Box<dyn Place>> {
        match (self.which(kubeconfig_is_there()), &self.manifests) {
            (Which::Folder, Some(dir)) => {
                let state = self.state.clone().unwrap_or_else(|| state::default_path(dir));
                Ok(Box::new(Folder::open(dir.clone(), state)?))
            }
            (Which::Api, _) => {
                let connect = Connect { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() };
                Ok(Box::new(Api::connect(&connect, patience)?))
            }
            (Which::Folder | Which::Role, _) => Ok(Box::new(Role { socket: self.find_socket()? })),
        }
    }

    const fn which(&self, kubeconfig_is_there: bool) -> Which {
        if self.manifests.is_some() {
            Which::Folder
        } else if self.socket.is_some() || self.run_dir.is_some() {
            Which::Role
        } else if self.kubeconfig.is_some() || self.context.is_some() || kubeconfig_is_there {
            Which::Api
        } else {
            Which::Role
        }
    }

    fn find_socket(&self) -> anyhow::Result<PathBuf> {
        let run_dir = self.run_dir.as_deref().unwrap_or(Path::new(RUN_DIR));
        match control::find_socket(self.socket.as_deref(), run_dir) {
            Err(control::ClientError::NoSocket(dir)) => bail!(
                "where are the objects? Expected --manifests DIR, --kubeconfig FILE, or a role that runs here \
                 (there is no kubeconfig where kubectl looks for one, and no control socket below {})",
                dir.display()
            ),
            found => Ok(found?),
        }
    }
}

/// Where `kubectl` would look, and a pod's service account.
fn kubeconfig_is_there() -> bool {
    let named = env::var_os("KUBECONFIG").is_some_and(|paths| !paths.is_empty());
    let home = env::home_dir().is_some_and(|home| home.join(".kube/config").is_file());
    named || home || env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_meant_and_else_the_api_server_before_a_role() {
        let path = || Some(PathBuf::from("x"));
        let table = [
            (PlaceArgs::default(), false, Which::Role),
            (PlaceArgs::default(), true, Which::Api),
            (PlaceArgs { manifests: path(), ..PlaceArgs::default() }, true, Which::Folder),
            (PlaceArgs { socket: path(), ..PlaceArgs::default() }, true, Which::Role),
            (PlaceArgs { run_dir: path(), ..PlaceArgs::default() }, true, Which::Role),
            (PlaceArgs { kubeconfig: path(), ..PlaceArgs::default() }, false, Which::Api),
            (PlaceArgs { context: Some("x".into()), ..PlaceArgs::default() }, false, Which::Api),
        ];
        for (args, kubeconfig, expected) in table {
            assert_eq!(args.which(kubeconfig), expected, "{args:?} {kubeconfig}");
        }
    }
}
