//! Debian's kernels: fetched once, unpacked below `target/vm`, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::process::{self, command, output};

pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    pub image: PathBuf,
    /// What belongs at `/lib/modules`.
    pub modules: PathBuf,
    /// Where the package was unpacked.
    pub root: PathBuf,
}

impl Kernel {
    /// The newest kernel that this package depends on. A network is needed for one that was not fetched before.
    pub fn fetch(dir: &Path, package: &str) -> Result<Self> {
        let depends = output(command("apt-cache").args(["depends", package]))
            .with_context(|| format!("apt-cache knows no package {package}: run apt-get update"))?;
        let image = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .with_context(|| format!("the package {package} depends on nothing"))?
            .to_owned();
        let release = image.trim_start_matches("linux-image-").to_owned();
        let root = dir.join(&release);
        let kernel = Self {
            image: root.join("boot").join(format!("vmlinuz-{release}")),
            modules: root.join("lib/modules"),
            release,
            root,
        };
        if !kernel.modules.join(&kernel.release).join("modules.dep").exists() {
            kernel.unpack(dir, &image)?;
        }
        Ok(kernel)
    }

    fn unpack(&self, dir: &Path, package: &str) -> Result<()> {
        let download = dir.join("download");
        fs::create_dir_all(&download).with_context(|| format!("cannot make {}", download.display()))?;
        eprintln!("vm: apt-get download {package}");
        // As root it would complain that apt's own user cannot write here.
        process::run(command("apt-get").current_dir(&download).args([
            "download",
            "--quiet=2",
            "--option=APT::Sandbox::User=root",
            package,
        ]))?;
        let file = fs::read_dir(&download)
            .with_context(|| format!("cannot read {}", download.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(package)))
            .with_context(|| format!("apt-get left no {package} in {}", download.display()))?;
        process::run(command("dpkg-deb").arg("--extract").arg(&file).arg(&self.root))?;
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        process::run(command("depmod").arg("--basedir").arg(&self.root).arg(&self.release))
    }
}
