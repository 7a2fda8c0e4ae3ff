//! `setup`: everything that build, demo and tests need and that a fresh Debian does not have.
//!
//! Idempotent and quick when all is there. Asks nothing, starts no service.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, bail};

use crate::process::{self, command, output};

/// What each package is for stands beside it.
const PACKAGES: &[&str] = &[
    "bind9-dnsutils",  // `dig`
    "bpftool",         // looking at programs and maps
    "ethtool",         // offloads of the lab's devices
    "iproute2",        // the lab's network
    "iptables",        // tests that translate addresses on the node
    "iputils-ping",    // tests that send ICMP
    "libpolly-22-dev", // bpf-linker links it
    "llvm-22-dev",     // bpf-linker links it
    "mariadb-client",
    "mariadb-server",
    "musl-tools", // a second C library, for its resolver
    "postgresql",
    "postgresql-contrib", // pgbench
    "procps",             // sysctl
    "redis-server",
    "redis-tools",
    "tcpdump",         // what is on the underlay
    "wireguard-go",    // a stock peer in the place of our tunnel
    "wireguard-tools", // `wg show`
];

/// What only `vm` needs.
pub const VM_PACKAGES: &[&str] = &[
    "busybox-static", // all of the first file system of the machine
    "cpio",           // which is made with it
    "kmod",           // finds the modules and what they need
    "qemu-system-x86",
    "xz-utils", // modules of newer kernels are compressed
];

/// Services that Debian would start with their packages; the lab starts its own.
const SERVICES: &[&str] = &["mariadb", "postgresql", "redis-server"];

const BPF_LINKER: &str = "0.13.0";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const CARGO_DENY: &str = "0.20.2";

#[derive(clap::Args, Clone, Copy, Default)]
pub struct Args {
    /// Also what only CI needs: cargo-deny
    #[arg(long)]
    ci: bool,
}

pub fn run(args: Args) -> Result<()> {
    let packages = missing_packages(PACKAGES);
    let rust_src = !has_rust_src();
    let linker = output(command("bpf-linker").arg("--version")).is_none_or(|out| !out.contains(BPF_LINKER));
    let deny = args.ci && output(command("cargo-deny").arg("--version")).is_none();
    if packages.is_empty() && !rust_src && !linker && !deny {
        eprintln!("setup: everything is there");
        return Ok(());
    }
    if !packages.is_empty() {
        install_packages(&packages)?;
    }
    if rust_src {
        install_nightly()?;
    }
    if linker {
        install_linker()?;
    }
    if deny {
        install_deny()?;
    }
    eprintln!("setup: done");
    Ok(())
}

/// Installs packages that only one task needs.
pub fn packages(wanted: &'static [&'static str]) -> Result<()> {
    let missing = missing_packages(wanted);
    if missing.is_empty() { Ok(()) } else { install_packages(&missing) }
}

fn missing_packages(wanted: &'static [&'static str]) -> Vec<&'static str> {
    // Succeeds only if every package is known; the lines that are printed are right in both cases.
    let known = command("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Abbrev}\n"])
        .args(wanted)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let installed = |package: &str| {
        known
            .lines()
            .any(|line| line.split_once(' ').is_some_and(|(n, s)| n == package && s.starts_with("ii")))
    };
    wanted.iter().copied().filter(|package| !installed(package)).collect()
}

fn install_packages(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if output(command("dpkg").arg("--version")).is_none() {
        bail!(
            "this is no Debian; install what these packages of Debian 12 hold, then run again: {list} \
             (and bpf-linker {BPF_LINKER} against LLVM 22)"
        );
    }
    if output(command("id").arg("-u")).is_none_or(|out| out.trim() != "0") {
        bail!("packages are missing and only root can install them: apt-get install {list}");
    }
    eprintln!("setup: apt-get install {list}");
    let policy = NoServices::new()?;
    process::run(command("apt-get").args(["update", "--quiet"]))?;
    process::run(
        command("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(packages),
    )?;
    drop(policy);
    if Path::new("/run/systemd/system").exists() {
        for service in
            SERVICES.iter().filter(|service| packages.iter().any(|package| package.starts_with(*service)))
        {
            eprintln!("setup: systemctl disable {service} (the lab starts its own)");
            process::run(command("systemctl").args(["disable", "--now", "--quiet", service]))?;
        }
    }
    Ok(())
}

/// While it lives, Debian's packages start no services (policy-rc.d(8)).
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn new() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        let policy = Self { ours: true };
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {POLICY} executable"))?;
        Ok(policy)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(err) = fs::remove_file(POLICY)
        {
            eprintln!("setup: cannot remove {POLICY}: {err}; without that no package starts its services");
        }
    }
}

fn has_rust_src() -> bool {
    let sysroot = output(command("rustup").args(["run", "nightly", "rustc", "--print=sysroot"]));
    sysroot.is_some_and(|root| Path::new(root.trim()).join("lib/rustlib/src/rust/library/core").exists())
}

fn install_nightly() -> Result<()> {
    if output(command("rustup").args(["run", "nightly", "rustc", "--version"])).is_none() {
        eprintln!("setup: rustup toolchain install nightly");
        process::run(command("rustup").args(["toolchain", "install", "nightly", "--profile=minimal"]))?;
    }
    eprintln!("setup: rustup component add rust-src clippy --toolchain nightly");
    process::run(command("rustup").args(["component", "add", "rust-src", "clippy", "--toolchain=nightly"]))
}

fn install_linker() -> Result<()> {
    eprintln!("setup: cargo install bpf-linker {BPF_LINKER} with {LLVM_PREFIX}");
    let mut cargo = process::cargo();
    cargo
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .args(["install", "bpf-linker", "--quiet", "--locked", "--force"])
        .arg(format!("--version={BPF_LINKER}"))
        .args(["--no-default-features", "--features=llvm-22"]);
    process::run(&mut cargo)
}

fn install_deny() -> Result<()> {
    eprintln!("setup: cargo install cargo-deny {CARGO_DENY}");
    let mut cargo = process::cargo();
    cargo.args(["install", "cargo-deny", "--quiet", "--locked"]).arg(format!("--version={CARGO_DENY}"));
    process::run(&mut cargo)
}
