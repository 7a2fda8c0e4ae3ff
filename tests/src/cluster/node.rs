//! A node: a machine of its own as far as programs on it can tell, made of namespaces.
//!
//! The first has the network of the lab's node. Of its own each has: processes, mounts, host name and cgroups. Below `/run`, `/var/lib`
//! and `/var/log` it sees folders of the lab, at `/sys/fs/bpf` a file system of its own; all other files are this
//! machine's. So `hostPath` volumes and defaults of roles work there as on any node, and nothing of this machine is
//! touched. It looks as if systemd had booted it, but nothing reads its units: tests do what they say.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::wait::wait,
    unistd::sethostname,
};

use super::cgroups::{Hierarchy, hierarchies};
use crate::lab::{
    CGROUPS, Id, Running, enforcer,
    network::{NODE4, NODE6},
    wait as until,
};

/// Below this folder of the node lies what the node sees at the paths in [`OWN`].
const ROOT: &str = "root";
const OWN: &[&str] = &["/run", "/var/lib", "/var/log"];
/// And this, on machines that have it.
const UNITS: &str = "/etc/systemd";
/// The programs of Kubernetes, as the node sees them in the lab's folder.
pub const PROGRAMS: &str = "programs";

/// One of the nodes that a cluster can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Node {
    /// Its part of the lab, in the names of namespaces and files.
    part: &'static str,
    /// IPv4 and IPv6.
    pub addresses: [&'static str; 2],
    /// Addresses of its pods. Controllers give them to nodes in the order in which these register.
    pub pods: [&'static str; 2],
}

pub const FIRST: Node =
    Node { part: "node", addresses: [NODE4, NODE6], pods: ["10.244.0.0/24", "fd00:10:244::/64"] };
/// Beside the first where somebody asked for two.
pub const SECOND: Node = Node {
    part: "node2",
    addresses: ["192.0.2.12", "2001:db8:1::12"],
    pods: ["10.244.1.0/24", "fd00:10:244:1::/64"],
};

impl Node {
    fn of(part: &str) -> Result<Self> {
        let node = [FIRST, SECOND].into_iter().find(|node| node.part == part);
        node.with_context(|| format!("there is no node {part}"))
    }

    /// As the API server knows it.
    pub fn name(self, id: &Id) -> String {
        format!("{}-{}", self.part, id.id)
    }

    /// Of a file that every node has one of.
    pub fn file(self, name: &str) -> String {
        if self == FIRST { name.to_owned() } else { format!("{}-{name}", self.part) }
    }

    pub fn netns(self, id: &Id) -> String {
        id.netns(self.part)
    }

    /// The node's root of cgroup v2.
    pub fn cgroup(self, id: &Id) -> PathBuf {
        if self == FIRST { id.kube() } else { id.cgroup.join(self.part) }
    }

    /// Its part of every hierarchy, that of version 2 first.
    pub(super) fn cgroups(self, id: &Id) -> Result<Vec<PathBuf>> {
        let old = hierarchies()?;
        let old = old.iter().map(|hierarchy| hierarchy.of_node(id, self.part));
        Ok([self.cgroup(id)].into_iter().chain(old).collect())
    }

    /// Where in the lab's folder lies what the node sees at this path.
    pub(super) fn below(self, id: &Id, path: &str) -> PathBuf {
        id.dir.join(self.file(ROOT)).join(path.trim_start_matches('/'))
    }

    /// In the lab's folder once everything is mounted.
    pub(super) fn ready(self, id: &Id) -> PathBuf {
        id.dir.join(self.file("ready"))
    }

    /// Number of the node's first process as the machine sees it.
    fn first(self, id: &Id) -> PathBuf {
        id.dir.join(self.file("pid"))
    }

    /// Starts the node's first process, and waits until everything is mounted.
    pub fn start(self, id: &Id, programs: &Path) -> Result<()> {
        let system = self.cgroup(id).join("system");
        fs::create_dir_all(&system).with_context(|| format!("cannot make {}", system.display()))?;
        for hierarchy in hierarchies()? {
            hierarchy.make(id, self.part)?;
        }
        let cgroups = self.cgroups(id)?;
        let own = OWN.iter().chain([&UNITS]).map(|own| self.below(id, own));
        for dir in own.chain([id.dir.join(PROGRAMS)]) {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        // A test that starts the node is another program.
        let lab = enforcer()?.with_file_name("enforcer-lab");
        let mut command = entering(&cgroups);
        command
            .arg("setsid")
            .arg("nsenter")
            .arg(format!("--net=/run/netns/{}", self.netns(id)))
            .args(["unshare", "--cgroup", "--mount", "--uts", "--ipc", "--pid", "--fork"])
            .args([&lab, Path::new("node-init"), Path::new(&id.id), Path::new(self.part), programs]);
        let log = id.log(&self.file("node"));
        let mut unshare = Running::start(&mut command, &log)?;
        let children = format!("/proc/{0}/task/{0}/children", unshare.pid());
        let ready = self.ready(id);
        let started = until::until("the node's first process is ready", || {
            unshare.ended().is_some().then_some(false).or_else(|| ready.exists().then_some(true))
        })?;
        if !started {
            anyhow::bail!("the node ended: {}", fs::read_to_string(&log).unwrap_or_default().trim());
        }
        let first = fs::read_to_string(&children).with_context(|| format!("cannot read {children}"))?;
        let path = self.first(id);
        fs::write(&path, first.trim()).with_context(|| format!("cannot write {}", path.display()))?;
        unshare.leave();
        Ok(())
    }

    /// Number of the node's first process; `None` when there is no such node.
    pub fn first_process(self, id: &Id) -> Option<u32> {
        let pid = fs::read_to_string(self.first(id)).ok()?.trim().parse().ok()?;
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        // The number may be another process' by now.
        line.contains("node-init").then_some(pid)
    }

    /// A program on the node.
    pub fn command(self, id: &Id, program: &str) -> Result<Command> {
        let first = self.first_process(id).context("the node does not run")?;
        let mut cgroups = self.cgroups(id)?;
        cgroups[0].push("system");
        let mut command = entering(&cgroups);
        command
            .args(["setsid", "--wait", "nsenter", "--target", &first.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--wd=/", "--"])
            .arg(program);
        Ok(command)
    }
}

/// The shell enters the cgroups and becomes what is added.
fn entering(cgroups: &[PathBuf]) -> Command {
    let mut command = Command::new("sh");
    let script = "for cgroup in $1; do echo 0 >\"$cgroup/cgroup.procs\" || exit; done; shift; exec \"$@\"";
    // No name of a cgroup holds a space.
    let list: Vec<String> = cgroups.iter().map(|cgroup| cgroup.display().to_string()).collect();
    command.args(["-c", script, "sh", &list.join(" ")]);
    command
}

/// What the node's first process does, in namespaces that nobody else is in yet: mount, then outlive everything.
pub fn init(id: &str, part: &str, programs: &Path) -> Result<()> {
    let (id, node) = (Id::of(id)?, Node::of(part)?);
    let hierarchies = hierarchies()?;
    let unified = CGROUPS.iter().find(|root| id.cgroup.starts_with(root)).context("no cgroup v2")?;
    sethostname(node.name(&id)).context("cannot set the host name")?;
    change("/", MsFlags::MS_PRIVATE)?;
    bind(programs, &id.dir.join(PROGRAMS))?;
    // The lab's own folder lies below what is replaced.
    let kept = node.below(&id, &id.dir.to_string_lossy());
    fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    bind(&id.dir, &kept)?;
    let units = Some(UNITS).filter(|units| Path::new(units).is_dir());
    for own in OWN.iter().copied().chain(units) {
        bind(&node.below(&id, own), Path::new(own))?;
    }
    if units.is_some() {
        fs::create_dir_all("/run/systemd/system")
            .and_then(|()| fs::create_dir_all(Path::new(UNITS).join("system")))
            .context("cannot make the node look booted by systemd")?;
    }
    new("proc", "/proc", "")?;
    new("sysfs", "/sys", "")?;
    new("bpf", "/sys/fs/bpf", "mode=700")?;
    mount_cgroups(&hierarchies, unified)?;
    change("/", MsFlags::MS_SHARED)?;
    let system = Path::new(unified).join("system/cgroup.procs");
    fs::write(&system, "0").with_context(|| format!("cannot write {}", system.display()))?;
    fs::write(node.ready(&id), "").context("cannot say that the node is ready")?;
    loop {
        // Whose parents are gone become its children.
        if wait() == Err(Errno::ECHILD) {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
}

/// Mounted anew, they show the node's part as all there is.
fn mount_cgroups(hierarchies: &[Hierarchy], unified: &str) -> Result<()> {
    if hierarchies.is_empty() {
        return new("cgroup2", unified, "");
    }
    new("tmpfs", "/sys/fs/cgroup", "mode=755")?;
    for hierarchy in hierarchies {
        fs::create_dir(&hierarchy.root)
            .with_context(|| format!("cannot make {}", hierarchy.root.display()))?;
        new("cgroup", &hierarchy.root.to_string_lossy(), &hierarchy.options())?;
        for controller in hierarchy.controllers.split(',').filter(|_| hierarchy.controllers.contains(',')) {
            let link = Path::new("/sys/fs/cgroup").join(controller);
            symlink(&hierarchy.controllers, &link)
                .with_context(|| format!("cannot make {}", link.display()))?;
        }
    }
    fs::create_dir(unified).with_context(|| format!("cannot make {unified}"))?;
    new("cgroup2", unified, "")
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("cannot mount {} at {}", from.display(), to.display()))
}

fn new(kind: &str, at: &str, options: &str) -> Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("cannot mount {kind} at {at}"))
}

fn change(at: &str, propagation: MsFlags) -> Result<()> {
    mount(None::<&str>, at, None::<&str>, MsFlags::MS_REC | propagation, None::<&str>)
        .with_context(|| format!("cannot change how mounts at {at} spread"))
}
