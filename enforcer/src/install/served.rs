//! What an API server serves, as far as what is installed depends on it.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::model::crd::Rules;

/// Kubernetes' version. The major one is 1.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct KubeVersion {
    pub minor: u16,
}

/// Below it nothing was ever tried.
const OLDEST: KubeVersion = KubeVersion { minor: 20 };

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VersionError {
    #[error("{0:?}: expected a version of Kubernetes, as 1.30 or v1.30.2")]
    Malformed(String),
    #[error("Kubernetes {0}: expected {OLDEST} or later")]
    TooOld(KubeVersion),
}

/// `1.30`, `v1.30.2`, `v1.30.2-gke.1`, and minors as servers write them: `30+`.
impl FromStr for KubeVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let malformed = || VersionError::Malformed(text.to_owned());
        let rest = text.strip_prefix('v').unwrap_or(text).strip_prefix("1.").ok_or_else(malformed)?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        let version = Self { minor: minor.parse().map_err(|_| malformed())? };
        if version < OLDEST { Err(VersionError::TooOld(version)) } else { Ok(version) }
    }
}

impl fmt::Display for KubeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

/// `policy/v1`, or `policy/v1/PodDisruptionBudget` where the group's version alone says too little.
pub const POLICY: &str = "policy/v1";
pub const ADMISSION: &str = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy";
pub const ADMISSION_BETA: &str = "admissionregistration.k8s.io/v1beta1/ValidatingAdmissionPolicy";
pub const SLICES: &str = "discovery.k8s.io/v1";

/// A server's version and those of the above that it serves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Served {
    pub version: KubeVersion,
    pub apis: BTreeSet<String>,
}

impl Served {
    /// What a server of this version serves unless somebody has told it otherwise.
    pub fn by(version: KubeVersion) -> Self {
        // Beta since 1.28, and off unless it is asked for: by its version alone a server does not serve ADMISSION_BETA.
        let since = [(POLICY, 21), (SLICES, 21), (ADMISSION, 30)];
        let apis = since.into_iter().filter(|(_, minor)| version.minor >= *minor);
        Self { version, apis: apis.map(|(api, _)| api.to_owned()).collect() }
    }

    /// The newest that is known: everything.
    pub fn newest() -> Self {
        Self::by(KubeVersion { minor: 36 })
    }

    pub fn has(&self, api: &str) -> bool {
        self.apis.contains(api)
    }

    /// `kubectl` refuses a field that the server does not know.
    pub fn rules(&self) -> Rules {
        if self.version.minor >= 25 { Rules::Cel } else { Rules::None }
    }

    /// What is left out or weaker than on a new server, and why; for a person.
    pub fn notes(&self) -> Vec<String> {
        let version = self.version;
        let mut notes = Vec::new();
        if !self.has(POLICY) {
            notes.push(format!(
                "Kubernetes {version} does not serve policy/v1: PodDisruptionBudgets are of policy/v1beta1"
            ));
        }
        if !self.has(SLICES) {
            notes.push(format!("Kubernetes {version} does not serve discovery.k8s.io/v1: the controller writes EndpointSlices of v1beta1"));
        }
        if self.rules() == Rules::None {
            notes.push(format!(
                "Kubernetes {version} has no CEL rules in CRDs: they are left out, a reference that is changed is not \
                 refused, its object becomes Valid=False instead"
            ));
        }
        match (self.has(ADMISSION), self.has(ADMISSION_BETA)) {
            (true, _) => {}
            (false, true) => notes.push(format!(
                "Kubernetes {version}: ValidatingAdmissionPolicies are of v1beta1, and tokens may not name their node: then \
                 an agent's token may write the TunnelNode of another node, and the controller holds on to the first key"
            )),
            (false, false) => notes.push(format!(
                "Kubernetes {version} does not serve ValidatingAdmissionPolicy (1.30): it is left out, an agent's token may \
                 write the TunnelNode of another node, and the controller holds on to the first key of each; and the \
                 controller's token may write anybody's Services, EndpointSlices and ConfigMaps"
            )),
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_people_and_servers_write_them() {
        for (text, minor) in [("1.30", 30), ("v1.20.2", 20), ("v1.31.1-gke.5", 31), ("1.27+", 27)] {
            assert_eq!(text.parse(), Ok(KubeVersion { minor }), "{text}");
        }
        for (text, message) in [
            ("2.0", "\"2.0\": expected a version of Kubernetes, as 1.30 or v1.30.2"),
            ("1.x", "\"1.x\": expected a version of Kubernetes, as 1.30 or v1.30.2"),
            ("1.19", "Kubernetes 1.19: expected 1.20 or later"),
        ] {
            assert_eq!(text.parse::<KubeVersion>().unwrap_err().to_string(), message);
        }
    }
}
