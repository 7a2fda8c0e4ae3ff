//! The packet filters, each with a number of allow rules of which the last one is the one that matters.

use std::{
    fmt::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Filter {
    Empty,
    IptablesLegacy,
    /// A rule each.
    NftRules,
    /// One rule that looks into a set.
    NftSet,
}

impl Filter {
    /// The empty one is first.
    pub const ALL: [Self; 4] = [Self::Empty, Self::IptablesLegacy, Self::NftRules, Self::NftSet];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "nothing",
            Self::IptablesLegacy => "iptables-legacy",
            Self::NftRules => "nftables rules",
            Self::NftSet => "nftables set",
        }
    }

    pub const fn metric(self) -> &'static str {
        match self {
            Self::Empty | Self::IptablesLegacy => "policy_vs_iptables",
            Self::NftRules | Self::NftSet => "policy_vs_nftables",
        }
    }

    /// Replaces what is there. Everything that no rule allows is dropped; answers pass by their source.
    pub fn install(self, netns: &str, rules: u32) -> Result<()> {
        match self {
            Self::Empty => Ok(()),
            Self::IptablesLegacy => feed(netns, &["iptables-legacy-restore"], &iptables(rules)),
            Self::NftRules | Self::NftSet => feed(netns, &["nft", "-f", "-"], &nft(self, rules)),
        }
    }
}

/// Clients that do not exist, and last the one that does.
fn clients(rules: u32) -> impl Iterator<Item = std::net::Ipv4Addr> {
    let others = 0x0a80_0000..0x0a80_0000 + rules - 1;
    others.chain([0x0a01_0002]).map(std::net::Ipv4Addr::from)
}

fn iptables(rules: u32) -> String {
    let mut text = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                    -A FORWARD -s 10.2.0.2/32 -j ACCEPT\n"
        .to_owned();
    for client in clients(rules) {
        for (protocol, port) in [("udp", super::NOWHERE), ("tcp", super::PORT)] {
            // Each number of rules is that of what may be reached; the two ports share it.
            if protocol == "tcp" || client.octets()[1] == 1 {
                let _ = writeln!(
                    text,
                    "-A FORWARD -s {client}/32 -d 10.2.0.2/32 -p {protocol} -m {protocol} --dport {port} -j ACCEPT"
                );
            }
        }
    }
    text + "COMMIT\n"
}

fn nft(filter: Filter, rules: u32) -> String {
    let mut text = "table ip bench\ndelete table ip bench\ntable ip bench {\n".to_owned();
    let allowed = || {
        let own = std::net::Ipv4Addr::new(10, 1, 0, 2);
        let all = clients(rules).map(|client| (client, "tcp", super::PORT));
        all.chain([(own, "udp", super::NOWHERE)])
    };
    if filter == Filter::NftSet {
        text += "set allowed {\ntype ipv4_addr . ipv4_addr . inet_proto . inet_service\nelements = {\n";
        for (client, protocol, port) in allowed() {
            let _ = writeln!(text, "{client} . 10.2.0.2 . {protocol} . {port},");
        }
        text += "}\n}\n";
    }
    text += "chain forward {\ntype filter hook forward priority 0; policy drop;\nip saddr 10.2.0.2 accept\n";
    if filter == Filter::NftSet {
        text += "ip saddr . ip daddr . ip protocol . th dport @allowed accept\n";
    } else {
        for (client, protocol, port) in allowed() {
            let _ = writeln!(text, "ip saddr {client} ip daddr 10.2.0.2 {protocol} dport {port} accept");
        }
    }
    text + "}\n}\n"
}

fn feed(netns: &str, program: &[&str], text: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns]).args(program).stdin(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program[0]))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    std::io::Write::write_all(&mut stdin, text.as_bytes()).with_context(|| program[0].to_owned())?;
    drop(stdin);
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed: {status}", program[0]);
    }
    Ok(())
}
