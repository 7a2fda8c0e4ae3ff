//! A server of custom resources of a Kubernetes that is newer than the one with everything: it knows rules in CEL and
//! admission policies. It serves our kinds, and nothing of Kubernetes' own.

use std::{
    env, fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use enforcer::source::kubernetes::Resource;
use serde_json::Value;

use super::{
    Api, Authority, Credentials, Servers, WATCHDOG, assets, bound, core, free_address,
    servers::{SERVER_PORT, STORE_PORT},
    tail,
};
use crate::lab::{Id, Running, clean, wait};

/// Names the server's binary.
const SERVER: &str = "ENFORCER_NEWER_SERVER";
/// Where the server asks who somebody is.
const CORE_PORT: u16 = SERVER_PORT + 2;
/// What needs a server with everything, or webhooks that nobody has.
const WITHOUT: &str =
    "NamespaceLifecycle,MutatingAdmissionWebhook,ValidatingAdmissionWebhook,MutatingAdmissionPolicy";

/// A running server with its store. Ends with this value.
pub struct Newer {
    id: Id,
    address: Ipv4Addr,
    authority: Authority,
    running: Vec<Running>,
}

impl Newer {
    /// With these policies in force. `None`, and said so, where tests were started without such a server.
    ///
    /// # Panics
    /// When tests may not be skipped.
    pub fn start(policies: &[Value]) -> Result<Option<Self>> {
        let Some(program) = env::var_os(SERVER).map(PathBuf::from) else {
            let required = env::var_os("ENFORCER_REQUIRE_ALL").is_some();
            assert!(!required, "{SERVER} names no server: run `cargo xtask test control --full`");
            // Past the capture of the test harness.
            let _ = writeln!(std::io::stderr(), "SKIP: {SERVER} names no server");
            return Ok(None);
        };
        clean::dead_labs()?;
        let id = Id::new()?;
        clean::own(&id)?;
        for dir in [id.dir.join("log"), id.dir.join("store"), id.tools()] {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let authority = Authority::new(&id.dir.join("keys"))?;
        let mut newer = Self { id, address: free_address()?, authority, running: Vec::new() };
        newer.start_all(&program, policies)?;
        Ok(Some(newer))
    }

    /// Requests of whoever has this token: `USER`, or `USER@NODE` of a pod whose token names its node.
    pub fn api(&self, token: &str) -> Result<Api> {
        let name = format!("user{}", token.replace([':', '@'], "."));
        let url = format!("https://{}:{SERVER_PORT}", self.address);
        Api::connect(self.authority.kubeconfig(&name, &url, &Credentials::Token(token.to_owned()))?)
    }

    fn start_all(&mut self, program: &Path, policies: &[Value]) -> Result<()> {
        let assets = assets()?;
        let servers = Servers {
            programs: &assets,
            authority: &self.authority,
            address: self.address,
            store: self.address,
        };
        servers.prepare()?;
        let store = servers.store(&self.id.dir.join("store"));
        self.running.push(bound::start(&self.id.tools(), &store, &self.id.log("etcd"))?);
        core::serve(SocketAddr::from((self.address, CORE_PORT)), policies)?;
        let core = format!("http://{}:{CORE_PORT}", self.address);
        let core = self.authority.kubeconfig("core", &core, &Credentials::Token("server".to_owned()))?;
        let (core, file) =
            (core.display().to_string(), |name: &str| self.authority.path(name).display().to_string());
        let flags = [
            ("authentication-kubeconfig", core.clone()),
            ("authorization-kubeconfig", core.clone()),
            ("kubeconfig", core),
            ("authentication-skip-lookup", "true".into()),
            ("bind-address", self.address.to_string()),
            ("secure-port", SERVER_PORT.to_string()),
            ("disable-admission-plugins", WITHOUT.into()),
            ("enable-priority-and-fairness", "false".into()),
            ("etcd-servers", format!("http://{}:{STORE_PORT}", self.address)),
            ("tls-cert-file", file("server.crt")),
            ("tls-private-key-file", file("server.key")),
        ];
        let mut command = Command::new(program);
        command.args(flags.iter().map(|(name, value)| format!("--{name}={value}")));
        self.running.push(bound::start(&self.id.tools(), &command, &self.id.log("newer"))?);
        let api = self.api("admin")?;
        let mut last = String::new();
        wait::until_within(WATCHDOG, "the newer server answers", || match api.list(&DEFINITION) {
            Ok(_) => Some(()),
            Err(err) => {
                last = err.to_string();
                None
            }
        })
        .with_context(|| format!("{last}: {}", tail(&self.id.log("newer"))))
    }
}

/// CustomResourceDefinitions.
pub const DEFINITION: Resource = Resource {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    namespaced: false,
};

impl Drop for Newer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- newer\n{}", tail(&self.id.log("newer")));
        }
        self.running.clear();
        if let Err(err) = clean::remove(&self.id) {
            eprintln!("newer server {}: {err:#}; `cargo xtask clean-lab` removes the rest", self.id.id);
        }
    }
}
