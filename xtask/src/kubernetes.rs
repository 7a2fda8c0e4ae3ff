//! Kubernetes' own binaries, for tests against a real API server and for the cluster of `cluster`.
//!
//! Debian has no package of the servers, but one of their source with everything that it needs. It is built once, which
//! takes minutes, and kept below `target/kube`.

pub mod newer;
mod source;

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    process::{self, command},
    setup,
};

/// What Debian 12 has the source of.
const VERSION: &str = "1.20.2";
/// The commit that the version was made from, as `kubectl version` says it.
const COMMIT: &str = "faecb196815e248d3ecfb03c680a4507229c2a56";

/// What the build needs, beside what a Rust toolchain needs.
const BUILD_PACKAGES: &[&str] = &[
    "golang-github-modern-go-reflect2-dev", // see `renew`
    "golang-go",
    "jq", // called by the scripts of the build
    "make",
    "rsync", // called by the scripts of the build
];

/// What an API server needs.
const RUN_PACKAGES: &[&str] = &[
    "etcd-server",
    "openssl", // certificates
];

const BUILT: &[&str] =
    &["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];
const ETCD: &str = "/usr/bin/etcd";

/// Names a folder with other builds of the API server, etcd and kubectl; others use the same name for it.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// A folder with `kube-apiserver`, `etcd` and `kubectl`: the one that is named, or our own, built now if it is not there.
pub fn control_plane() -> Result<PathBuf> {
    let Some(assets) = env::var_os(ASSETS).map(PathBuf::from) else { return everything() };
    setup::packages(&["openssl"])?;
    for name in ["etcd", "kube-apiserver", "kubectl"] {
        if !assets.join(name).is_file() {
            bail!("{ASSETS} is {}, where there is no {name}", assets.display());
        }
    }
    Ok(assets)
}

/// kubectl of the folder that is named, else of this machine, else our own.
pub fn kubectl() -> Result<PathBuf> {
    let assets = env::var_os(ASSETS).map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = assets.into_iter().chain(env::split_paths(&path)).map(|dir| dir.join("kubectl"));
    places.find(|kubectl| kubectl.is_file()).map_or_else(|| Ok(everything()?.join("kubectl")), Ok)
}

/// A folder with every binary of a cluster: the one that is named, where it has them all, or our own. Instant when they
/// are there.
pub fn everything() -> Result<PathBuf> {
    setup::packages(RUN_PACKAGES)?;
    if let Some(assets) = env::var_os(ASSETS).map(PathBuf::from) {
        match BUILT.iter().chain(&["etcd"]).find(|name| !assets.join(name).is_file()) {
            None => return Ok(assets),
            Some(name) => eprintln!("kubernetes: {ASSETS} has no {name}: a cluster is made of our own build"),
        }
    }
    let dir = build::target().join("kube").join(format!("v{VERSION}"));
    let bin = dir.join("bin");
    if bin.is_dir() {
        return Ok(bin);
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join("lock");
    let lock = fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    // Whoever had the lock before may have built it.
    if !bin.is_dir() {
        make(&dir, &bin)?;
    }
    Ok(bin)
}

/// Builds beside, and gives the result its name when all of it is there.
fn make(dir: &Path, bin: &Path) -> Result<()> {
    setup::packages(BUILD_PACKAGES)?;
    let aside = dir.join("build");
    remove(&aside)?;
    let tree = aside.join("src");
    source::fetch(&aside, &tree)?;
    renew(&tree)?;
    let version = aside.join("version");
    let (major, minor) =
        VERSION.split_once('.').map(|(major, rest)| (major, rest.split('.').next())).unwrap_or_default();
    let text = format!(
        "KUBE_GIT_COMMIT='{COMMIT}'\nKUBE_GIT_TREE_STATE='archive'\nKUBE_GIT_VERSION='v{VERSION}'\n\
         KUBE_GIT_MAJOR='{major}'\nKUBE_GIT_MINOR='{}'\n",
        minor.unwrap_or_default()
    );
    fs::write(&version, text).with_context(|| format!("cannot write {}", version.display()))?;
    eprintln!("kubernetes: building {VERSION}, once; this takes minutes");
    let what: Vec<String> = BUILT.iter().map(|name| format!("cmd/{name}")).collect();
    process::run(
        command("make")
            .current_dir(&tree)
            .arg(format!("WHAT={}", what.join(" ")))
            .env("KUBE_GIT_VERSION_FILE", &version)
            // Everything is in the source; whatever is not is an error, no download.
            .env("GOFLAGS", "-mod=vendor")
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local")
            .env("GOCACHE", aside.join("cache"))
            .env("GOTMPDIR", &tree)
            .env_remove("GOPATH"),
    )?;
    let built = tree.join("_output/local/go/bin");
    let ready = aside.join("bin");
    fs::create_dir(&ready).with_context(|| format!("cannot make {}", ready.display()))?;
    for name in BUILT {
        // The build refers to its results by links.
        let file = fs::canonicalize(built.join(name)).with_context(|| format!("the build left no {name}"))?;
        fs::rename(file, ready.join(name)).with_context(|| format!("cannot move {name}"))?;
    }
    symlink(ETCD, ready.join("etcd")).context("cannot link etcd")?;
    fs::rename(&ready, bin).with_context(|| format!("cannot rename to {}", bin.display()))?;
    eprintln!("kubernetes: {VERSION} is in {}", bin.display());
    remove(&aside)
}

/// One library of the source looks into Go's own maps as they were before Go 1.18: with Debian's Go the API server
/// ends at the first custom resource. Debian's package of the same library is new enough.
fn renew(tree: &Path) -> Result<()> {
    const LIBRARY: &str = "github.com/modern-go/reflect2";
    let new = Path::new("/usr/share/gocode/src").join(LIBRARY);
    let old = tree.join("vendor").join(LIBRARY);
    remove(&old)?;
    process::run(command("cp").arg("-r").arg(&new).arg(&old))
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
