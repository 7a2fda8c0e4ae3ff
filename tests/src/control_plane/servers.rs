//! How etcd and the API server are started, for a control plane alone as for a cluster.

use std::{net::Ipv4Addr, path::Path, process::Command};

use anyhow::Result;

use super::{Authority, Credentials, User};

pub const SERVER_PORT: u16 = 6443;
pub const STORE_PORT: u16 = 2379;
pub const STORE_PEER_PORT: u16 = 2380;
/// Services get their addresses from here, unless it is said otherwise.
pub const SERVICES: &str = "10.96.0.0/16";
/// The first of them is the API server's.
const SERVICE: &str = "10.96.0.1";
pub const ISSUER: &str = "https://kubernetes.default.svc";
/// Names by which pods know the server.
const NAMES: &[&str] =
    &["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// An API server and its store, before they run.
pub struct Servers<'a> {
    /// Folder of the programs.
    pub programs: &'a Path,
    pub authority: &'a Authority,
    /// Where the API server listens.
    pub address: Ipv4Addr,
    /// Where the store listens.
    pub store: Ipv4Addr,
}

impl Servers<'_> {
    pub fn url(&self) -> String {
        format!("https://{}:{SERVER_PORT}", self.address)
    }

    /// Makes the server's certificate, and the kubeconfig `admin` of a user who may do everything.
    pub fn prepare(&self) -> Result<()> {
        self.authority.serve("server", &[&self.address.to_string(), SERVICE], NAMES)?;
        let admin = User { name: "admin", groups: &["system:masters"] };
        self.authority.kubeconfig("admin", &self.url(), &Credentials::Certificate(admin))?;
        Ok(())
    }

    pub fn store(&self, data: &Path) -> Command {
        let client = format!("http://{}:{STORE_PORT}", self.store);
        let peer = format!("http://{}:{STORE_PEER_PORT}", self.store);
        let mut command = Command::new(self.programs.join("etcd"));
        command.args(["--name", "store", "--data-dir"]).arg(data);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("store={peer}")]);
        command
    }

    pub fn api(&self, more: &[&str]) -> Command {
        let file = |name: &str| self.authority.path(name).display().to_string();
        let address = self.address.to_string();
        let flags = [
            ("advertise-address", address.clone()),
            ("allow-privileged", "true".into()),
            ("bind-address", address),
            ("cert-dir", file("")),
            ("client-ca-file", file("ca.crt")),
            ("etcd-servers", format!("http://{}:{STORE_PORT}", self.store)),
            ("profiling", "false".into()),
            ("secure-port", SERVER_PORT.to_string()),
            ("service-account-issuer", ISSUER.into()),
            ("service-account-key-file", file("accounts.pub")),
            ("service-account-signing-key-file", file("accounts.key")),
            ("service-cluster-ip-range", SERVICES.into()),
            ("tls-cert-file", file("server.crt")),
            ("tls-private-key-file", file("server.key")),
        ];
        let mut command = Command::new(self.programs.join("kube-apiserver"));
        command.arg("--authorization-mode=Node,RBAC");
        command.args(flags.iter().map(|(name, value)| format!("--{name}={value}"))).args(more);
        command
    }
}
