//! Many pods at once: IPv4 only, made in batches, named by their number.

use std::{fs, net::Ipv4Addr, process::Stdio};

use anyhow::{Context, Result, bail};
use enforcer::netns::{path_of, run_in};

use super::{
    Lab, Place,
    manifests::{GRANTED, PROJECT},
    network::NODE4,
};

/// One of many pods.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Member(pub u16);

impl Member {
    pub fn name(self) -> String {
        format!("p{}", self.0)
    }

    pub fn address(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(10, 245, high, low)
    }

    /// The node's end of its veth.
    pub fn host_end(self) -> String {
        format!("crowd{}", self.0)
    }

    pub fn uid(self) -> String {
        format!("uid-{}", self.name())
    }
}

impl Lab {
    /// Namespaces, veths and routes of pods; no object says yet that they are there.
    pub fn add_crowd(&self, members: impl Iterator<Item = Member> + Clone) -> Result<()> {
        let node = self.id.netns("node");
        let spaces: Vec<String> =
            members.clone().map(|member| format!("netns add {}\n", self.id.netns(&member.name()))).collect();
        let spaces = spaces.concat();
        batch(None, &spaces)?;
        let devices = members.clone().map(|member| {
            let (netns, host_end, address) =
                (self.id.netns(&member.name()), member.host_end(), member.address());
            format!(
                "link add {host_end} type veth peer name eth0 netns {netns}\n\
                 addr add 169.254.1.1/32 dev {host_end}\n\
                 link set {host_end} up\n\
                 route add {address}/32 dev {host_end}\n"
            )
        });
        batch(Some(&node), &devices.collect::<Vec<_>>().concat())?;
        for member in members {
            let lines = format!(
                "link set lo up\n\
                 addr add {}/32 dev eth0\n\
                 link set eth0 up\n\
                 route add 169.254.1.1 dev eth0\n\
                 route add default via 169.254.1.1 dev eth0\n",
                member.address()
            );
            let netns = self.id.netns(&member.name());
            batch(Some(&netns), &lines)?;
            allow_ping(&netns)?;
            fs::create_dir_all(self.crowd_place(member).cgroup)?;
        }
        Ok(())
    }

    pub fn crowd_place(&self, member: Member) -> Place {
        Place { netns: self.id.netns(&member.name()), cgroup: self.id.kube().join(member.name()) }
    }

    /// Writes the object of a pod, selected by the lab's connections and by a label of its own.
    pub fn save_member(&self, member: Member) -> Result<()> {
        let ((key, value), name) = (GRANTED, member.name());
        let yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {PROJECT}\n  uid: {}\n  labels: \
             {{{key}: {value}, member: {name}}}\n  annotations: {{enforcer.dev/netns: {}}}\nspec: {{nodeName: {}}}\n\
             status:\n  phase: Running\n  hostIP: {NODE4}\n  podIPs: [{{ip: {}}}]\n",
            member.uid(),
            self.id.netns(&name),
            self.id.node(),
            member.address()
        );
        self.save(&format!("pod-{name}.yaml"), &yaml)
    }
}

/// Ping sockets for everyone; a program for each of hundreds of namespaces would take its time.
fn allow_ping(netns: &str) -> Result<()> {
    let write = || fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    run_in(&path_of(netns), write).flatten().with_context(|| format!("cannot allow ping in {netns}"))
}

/// Runs many lines of `ip` in one go.
fn batch(netns: Option<&str>, lines: &str) -> Result<()> {
    let mut command = std::process::Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    let mut child = command.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().context("cannot start ip")?;
    let mut stdin = child.stdin.take().context("ip has no standard input")?;
    std::io::Write::write_all(&mut stdin, lines.as_bytes()).context("ip does not read")?;
    drop(stdin);
    let status = child.wait()?;
    if !status.success() {
        bail!("ip -batch failed: {status}");
    }
    Ok(())
}
