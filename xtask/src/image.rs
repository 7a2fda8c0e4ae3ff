//! `image`: enforcer as a container image, without a container engine: one static binary, no shell, no distribution.

mod archive;

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use self::archive::Image;
use crate::{
    build,
    process::{self, command, output},
    setup,
};

pub const NAME: &str = "enforcer.dev/enforcer:dev";
/// Of the file, for a release; the other parts of an image are a few kilobytes.
const LIMIT: u64 = 30 << 20;
/// What the test cluster makes its pods of. Its containerd knows it by this name (`tests/src/cluster/files.rs`).
const BUSYBOX: &str = "enforcer.dev/busybox:test";

/// For pods with this machine's programs: they have its `/usr` as a volume (`tests/src/cluster/pods.rs`).
pub const MACHINE: &str = "enforcer.dev/machine:test";

const PACKAGES: &[&str] = &[
    "binutils",   // strip
    "musl-tools", // compiles the C parts of dependencies for the static binary
];

#[derive(clap::Args)]
pub struct Args {
    /// As for development: built quickly, of any size
    #[arg(long)]
    dev: bool,
    /// Where it is written [default: enforcer.tar in the folder of what is built]
    #[arg(long)]
    output: Option<PathBuf>,
    /// What it is called where it is loaded
    #[arg(long, default_value = NAME)]
    name: String,
}

pub fn run(args: &Args) -> Result<()> {
    let tar = args.output.clone().unwrap_or_else(|| build::target().join("image/enforcer.tar"));
    let image = enforcer(&args.name, args.dev, &tar)?;
    let size = image.size;
    eprintln!("image: {} in {}, {:.1} MiB, {}", args.name, tar.display(), mebibytes(size), image.digest);
    if !args.dev && size > LIMIT {
        bail!("the image is larger than {:.0} MiB", mebibytes(LIMIT));
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "one digit is printed")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Builds the static binary and makes an image of it.
fn enforcer(name: &str, dev: bool, tar: &Path) -> Result<archive::Written> {
    setup::packages(PACKAGES)?;
    let target = format!("{}-unknown-linux-musl", env::consts::ARCH);
    install(&target)?;
    let mut cargo = process::cargo();
    cargo.args(["build", "--package=enforcer", "--bin=enforcer", "--target", &target]);
    cargo.env(format!("CC_{}", target.replace('-', "_")), "musl-gcc");
    if !dev {
        cargo.arg("--release");
    }
    process::run(&mut cargo)?;
    let binary = build::target().join(&target).join(if dev { "debug" } else { "release" }).join("enforcer");
    let root = fresh(&build::target().join("image/enforcer"))?;
    // Names of functions stay: a backtrace without them helps nobody.
    process::run(command("strip").arg("--strip-debug").arg("-o").arg(root.join("enforcer")).arg(binary))?;
    let config = json!({"Entrypoint": ["/enforcer"], "WorkingDir": "/"});
    Image { name, config, root: &root }.write(tar)
}

/// As `--dev`, for the cluster of the tests.
pub fn for_tests() -> Result<PathBuf> {
    let tar = build::target().join("image/enforcer-dev.tar");
    let image = enforcer(NAME, true, &tar)?;
    eprintln!("image: {NAME}, {:.1} MiB, {}", mebibytes(image.size), image.digest);
    Ok(tar)
}

/// Debian's static busybox with every command that it has.
pub fn busybox() -> Result<PathBuf> {
    setup::packages(&["busybox-static"])?;
    let dir = build::target().join("image");
    let root = fresh(&dir.join("busybox"))?;
    for dir in ["bin", "etc", "root", "tmp"] {
        fs::create_dir(root.join(dir)).with_context(|| format!("cannot make {dir} for the image"))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("cannot copy busybox")?;
    let commands = output(command("/bin/busybox").arg("--list")).context("busybox lists no commands")?;
    for name in commands.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name)).with_context(|| format!("cannot link {name}"))?;
    }
    let tar = dir.join("busybox.tar");
    // What holds the namespaces of a pod does nothing but that.
    let config = json!({"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "1000000000"], "WorkingDir": "/"});
    Image { name: BUSYBOX, config, root: &root }.write(&tar)?;
    Ok(tar)
}

/// Debian's links into `/usr`, and nothing that they lead to.
pub fn machine() -> Result<PathBuf> {
    let dir = build::target().join("image");
    let root = fresh(&dir.join("machine"))?;
    for dir in ["etc", "lab", "root", "tmp", "usr"] {
        fs::create_dir(root.join(dir)).with_context(|| format!("cannot make {dir} for the image"))?;
    }
    for link in ["bin", "lib", "lib64", "sbin"] {
        symlink(Path::new("usr").join(link), root.join(link))
            .with_context(|| format!("cannot link {link}"))?;
    }
    let tar = dir.join("machine.tar");
    let config = json!({"Env": ["PATH=/usr/sbin:/usr/bin:/lab"], "WorkingDir": "/"});
    Image { name: MACHINE, config, root: &root }.write(&tar)?;
    Ok(tar)
}

fn install(target: &str) -> Result<()> {
    let installed = output(command("rustup").args(["target", "list", "--installed"]));
    if installed.is_some_and(|targets| targets.lines().any(|installed| installed == target)) {
        return Ok(());
    }
    eprintln!("image: rustup target add {target}");
    process::run(command("rustup").args(["target", "add", target]))
}

/// An empty folder.
fn fresh(dir: &Path) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.to_owned())
}
