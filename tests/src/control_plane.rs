//! A real API server with its store, for tests of what talks to one. No node, no controller of Kubernetes' own.
//!
//! Each has an address of its own in 127.0.0.0/8, so that whatever happens to it, its ports stay its own. Its files and
//! processes are those of a lab without a network: what a killed process leaves behind goes with the next lab.

mod api;
mod audit;
mod authority;
mod bound;
mod core;
mod line;
mod newer;
mod servers;

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

pub use api::Api;
pub use audit::Request;
pub use authority::{Authority, Credentials, User};
pub use line::Line;
pub use newer::{DEFINITION, Newer};
use servers::{ISSUER, SERVER_PORT, STORE_PEER_PORT, STORE_PORT};
pub use servers::{SERVICES, Servers};

use crate::lab::{
    Id, Running, clean,
    command::{finish, finish_with},
    roles::enforcer,
    wait,
};

/// Names a folder with `kube-apiserver`, `etcd` and `kubectl`.
const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// Where a line to the server begins.
const LINE_PORT: u16 = SERVER_PORT + 1;
/// A few seconds where nothing else runs.
const WATCHDOG: Duration = Duration::from_mins(3);

/// A running API server with its store. Ends with this value, at the latest with this process.
pub struct ControlPlane {
    id: Id,
    assets: PathBuf,
    address: Ipv4Addr,
    authority: Authority,
    store: Option<Running>,
    server: Option<Running>,
}

impl ControlPlane {
    /// Starts both, and waits until the server says that it is ready.
    pub fn start() -> Result<Self> {
        clean::dead_labs()?;
        let assets = assets()?;
        let id = Id::new()?;
        clean::own(&id)?;
        for dir in [id.dir.join("log"), id.dir.join("store"), id.dir.join("keys"), id.tools()] {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let authority = Authority::new(&id.dir.join("keys"))?;
        let address = free_address()?;
        let mut plane = Self { id, assets, address, authority, store: None, server: None };
        plane.servers().prepare()?;
        plane.start_store()?;
        plane.restart()?;
        Ok(plane)
    }

    /// Where the server listens, as a URL.
    pub fn server(&self) -> String {
        self.servers().url()
    }

    /// For a user who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.authority.kubeconfig_path("admin")
    }

    /// For a service account that exists, with a token of the server that is good for an hour.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let token = self.token(namespace, account)?;
        let name = format!("{namespace}.{account}");
        self.authority.kubeconfig(&name, &self.server(), &Credentials::Token(token))
    }

    /// A token for a service account that exists.
    pub fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [ISSUER], "expirationSeconds": 3600},
        });
        let answer =
            self.kubectl_with(&["create", "--raw", &path, "--filename", "-"], &request.to_string())?;
        let answer: Value = serde_json::from_str(&answer).context("the answer is no JSON")?;
        let token = answer["status"]["token"].as_str().context("the answer has no token")?;
        Ok(token.to_owned())
    }

    /// A line to the server, in a network namespace by the server's own address.
    pub fn line(&self, netns: Option<&str>) -> Result<Line> {
        let server = SocketAddr::from((self.address, SERVER_PORT));
        let listen = SocketAddr::from((self.address, if netns.is_some() { SERVER_PORT } else { LINE_PORT }));
        Line::open(netns, listen, server)
    }

    /// A line in a network namespace that lasts as long as this process.
    pub fn reach_from(&self, netns: &str) -> Result<()> {
        std::mem::forget(self.line(Some(netns))?);
        Ok(())
    }

    /// For a user who may do everything, by way of [`Self::line`].
    pub fn kubeconfig_by_line(&self) -> Result<PathBuf> {
        let admin = User { name: "admin", groups: &["system:masters"] };
        let url = format!("https://{}:{LINE_PORT}", self.address);
        self.authority.kubeconfig("line", &url, &Credentials::Certificate(admin))
    }

    /// What our roles have asked of the server, each with its own account.
    pub fn requests(&self) -> Result<Vec<Request>> {
        audit::requests(&self.id.dir)
    }

    /// Requests of a user who may do everything.
    pub fn api(&self) -> Result<Api> {
        Api::connect(self.kubeconfig())
    }

    /// Runs kubectl as a user who may do everything, and returns what it prints.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        finish(self.command(&self.kubeconfig()).args(args))
    }

    /// The same as the user of a kubeconfig.
    pub fn kubectl_as(&self, kubeconfig: &Path, args: &[&str]) -> Result<String> {
        finish(self.command(kubeconfig).args(args))
    }

    /// The same with standard input, as for `apply --filename -`.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        finish_with(self.command(&self.kubeconfig()).args(args), input)
    }

    /// Where `kubectl` and the like are.
    pub fn program(&self, name: &str) -> PathBuf {
        self.assets.join(name)
    }

    fn command(&self, kubeconfig: &Path) -> Command {
        let mut command = Command::new(self.program("kubectl"));
        command.arg("--kubeconfig").arg(kubeconfig).env("HOME", &self.id.dir);
        command
    }

    /// The server stops answering; connections stay open.
    pub fn pause(&self) -> Result<()> {
        self.running()?.signal(Signal::SIGSTOP)
    }

    pub fn resume(&self) -> Result<()> {
        self.running()?.signal(Signal::SIGCONT)
    }

    /// `kill -9`: connections are closed, new ones refused. The store goes on.
    pub fn kill(&mut self) -> Result<()> {
        self.server.take().context("the server does not run")?.kill()
    }

    /// Starts the server where it was before, and waits until it is ready; ends it first if it runs.
    pub fn restart(&mut self) -> Result<()> {
        drop(self.server.take());
        // Nobody is there to make the tokens that this admission waits for.
        let [policy, log] = audit::flags(&self.id.dir)?;
        let command = self.servers().api(&["--disable-admission-plugins=ServiceAccount", &policy, &log]);
        self.server = Some(bound::start(&self.id.tools(), &command, &self.log("kube-apiserver"))?);
        let mut last = String::new();
        let ready = wait::until_within(WATCHDOG, "the API server is ready", || {
            if let Some(status) = self.server.as_mut().and_then(Running::ended) {
                return Some(Err(format!("kube-apiserver ended: {status}")));
            }
            // The server makes this namespace itself, a moment after it says that it is ready.
            let paths = ["/readyz", "/api/v1/namespaces/default"];
            match paths.iter().try_for_each(|path| self.kubectl(&["get", "--raw", path]).map(drop)) {
                Ok(()) => return Some(Ok(())),
                Err(err) => last = format!("{err:#}"),
            }
            None
        });
        let log = self.log("kube-apiserver");
        match ready.with_context(|| format!("{last}; see {}", log.display()))? {
            Ok(()) => Ok(()),
            Err(why) => bail!("{why}: {}", tail(&log)),
        }
    }

    /// Starts one of our roles as a user who may do everything; `name` is its log's.
    pub fn role(&self, name: &str, args: &[&str]) -> Result<Running> {
        let mut command = Command::new(enforcer()?);
        command.args(args).arg("--kubeconfig").arg(self.kubeconfig());
        bound::start(&self.id.tools(), &command, &self.log(name))
    }

    /// Folder of everything that belongs to it.
    pub fn dir(&self) -> &Path {
        &self.id.dir
    }

    /// The server's process.
    pub fn running(&self) -> Result<&Running> {
        self.server.as_ref().context("the server does not run")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.id.log(name)
    }

    fn start_store(&mut self) -> Result<()> {
        let command = self.servers().store(&self.id.dir.join("store"));
        self.store = Some(bound::start(&self.id.tools(), &command, &self.log("etcd"))?);
        let at = (self.address, STORE_PORT);
        wait::for_true("the store listens", || std::net::TcpStream::connect(at).is_ok())
    }

    fn servers(&self) -> Servers<'_> {
        Servers {
            programs: &self.assets,
            authority: &self.authority,
            address: self.address,
            store: self.address,
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- kube-apiserver\n{}", tail(&self.log("kube-apiserver")));
        }
        drop((self.server.take(), self.store.take()));
        if let Err(err) = clean::remove(&self.id) {
            eprintln!("control plane {}: {err:#}; `cargo xtask clean-lab` removes the rest", self.id.id);
        }
    }
}

/// Where the binaries are: the folder that is named, or what `cargo xtask` has built.
fn assets() -> Result<PathBuf> {
    if let Some(assets) = env::var_os(ASSETS) {
        return Ok(assets.into());
    }
    let own = env::current_exe().context("cannot find the own binary")?;
    let folder = own.ancestors().map(|dir| dir.join("kube")).find(|dir| dir.is_dir());
    let versions = folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten();
    let built = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).find(|bin| bin.is_dir());
    built.with_context(|| format!("no Kubernetes below {}: run `cargo xtask test control`", own.display()))
}

/// An address of this machine on which nobody listens, another one for each caller.
fn free_address() -> Result<Ipv4Addr> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // A few for each process; neighbours in number are far apart.
        let number = std::process::id().wrapping_mul(16).wrapping_add(count) % (200 << 16);
        let address = Ipv4Addr::from(0x7f10_0000 + number);
        if [SERVER_PORT, LINE_PORT, STORE_PORT, STORE_PEER_PORT]
            .iter()
            .all(|port| TcpListener::bind((address, *port)).is_ok())
        {
            return Ok(address);
        }
    }
    bail!("every address in 127.0.0.0/8 that was tried is in use")
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
