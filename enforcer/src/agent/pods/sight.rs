//! One look at a pod.

use std::{io, net::IpAddr, path::PathBuf, sync::Arc};

use super::kubelet::{self, Held, Kubelet};
use crate::{
    cgroup,
    model::{CGROUP_ANNOTATION, NETNS_ANNOTATION},
    netlink::{self, Visit},
};

/// Where to look for a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Home {
    Netns(PathBuf),
    Cgroup(PathBuf),
    /// Where kubelet has put it.
    Kubelet {
        uid: String,
        host_network: bool,
    },
    /// The object does not say.
    Nowhere,
}

/// What one look at a pod has found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sight {
    Netns(Visit),
    Cgroup(u64),
}

#[derive(Debug, thiserror::Error)]
pub enum SightError {
    #[error("its network namespace cannot be visited")]
    Netns(#[from] netlink::NetlinkError),
    #[error("its cgroup {path} cannot be read")]
    Cgroup {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Kubelet(#[from] io::Error),
    #[error(
        "its object does not say where it is, expected the annotation {NETNS_ANNOTATION}, or {CGROUP_ANNOTATION} for hostNetwork"
    )]
    Nowhere,
}

impl SightError {
    pub fn is_gone(&self) -> bool {
        let errno = match self {
            Self::Netns(error) => error.errno(),
            Self::Cgroup { source, .. } => source.raw_os_error(),
            Self::Kubelet(error) => return error.kind() == io::ErrorKind::NotFound,
            Self::Nowhere => return true,
        };
        // EINVAL: the file is there, the namespace that was bound over it is not.
        matches!(errno, Some(libc::ENOENT | libc::EINVAL))
    }
}

/// With the pod's namespace, where no name leads to it.
pub type Seen = (Sight, Option<Arc<Held>>);

pub async fn visit(
    home: Home,
    kubelet: Option<Arc<Kubelet>>,
    held: Option<Arc<Held>>,
    targets: &[IpAddr],
) -> Result<Seen, SightError> {
    let by_cgroup = |path: PathBuf| {
        let id = cgroup::id(&path).map(|id| (Sight::Cgroup(id), None));
        id.map_err(|source| SightError::Cgroup { path, source })
    };
    match (home, kubelet) {
        (Home::Netns(path), _) => Ok((Sight::Netns(netlink::visit(&path, targets).await?), None)),
        (Home::Cgroup(path), _) => by_cgroup(path),
        (Home::Kubelet { uid, host_network }, Some(kubelet)) => {
            let find = move || kubelet.find(&uid, host_network, held.as_ref());
            match tokio::task::spawn_blocking(find).await.map_err(io::Error::other)?? {
                kubelet::Found::Cgroup(path) => by_cgroup(path),
                kubelet::Found::Netns(held) => {
                    let visit = netlink::visit(&held.path(), targets).await?;
                    Ok((Sight::Netns(visit), Some(held)))
                }
            }
        }
        (Home::Kubelet { .. }, None) | (Home::Nowhere, _) => Err(SightError::Nowhere),
    }
}
