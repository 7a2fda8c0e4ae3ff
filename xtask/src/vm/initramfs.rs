//! The first file system of the machine: busybox, what it takes to see this machine's files, and `init`.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use super::{BEGIN, END, kernel::Kernel};
use crate::process::{self, command, output};

/// Makes it anew: it is small, and depends on the kernel.
pub fn make(dir: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let root = dir.join(format!("{}.initramfs", kernel.release));
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    for folder in ["bin", "sbin", "modules", "proc", "sys", "dev", "lower", "upper", "root"] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("cannot make {}", root.display()))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("cannot copy busybox")?;
    let modules = copy_modules(&root, kernel)?;
    write_script(&root.join("init"), &init(&modules))?;
    // The kernel looks for modules with the programs of its first file system.
    let modprobe = "#!/bin/busybox sh\nexec /bin/busybox chroot /root /sbin/modprobe \"$@\"\n";
    write_script(&root.join("sbin/modprobe"), modprobe)?;
    pack(&root, &dir.join(format!("{}.cpio", kernel.release)))
}

/// Modules for the files, in the order in which they are loaded; they lie in `/modules`, not compressed.
fn copy_modules(root: &Path, kernel: &Kernel) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for module in ["virtio_pci", "virtiofs", "overlay"] {
        let list = output(command("modprobe").arg("--dirname").arg(&kernel.root).args([
            "--set-version",
            &kernel.release,
            "--show-depends",
            module,
        ]));
        let list =
            list.with_context(|| format!("modprobe knows no module {module} for {}", kernel.release))?;
        // What is part of the kernel is listed as `builtin`.
        for path in list.lines().filter_map(|line| line.strip_prefix("insmod ")).map(str::trim) {
            let file = Path::new(path).file_name().context("a module without a name")?.to_string_lossy();
            let name = file.trim_end_matches(".xz").to_owned();
            if names.contains(&name) {
                continue;
            }
            let to = root.join("modules").join(&name);
            if file.ends_with(".xz") {
                let to = File::create(&to).with_context(|| format!("cannot make {}", to.display()))?;
                process::run(command("xz").args(["--decompress", "--stdout", path]).stdout(to))?;
            } else {
                fs::copy(path, &to).with_context(|| format!("cannot copy {path}"))?;
            }
            names.push(name);
        }
    }
    Ok(names)
}

/// The machine's first program: this machine's files below, a forgetful layer above, then the command.
fn init(modules: &[String]) -> String {
    let modules = modules.join(" ");
    format!(
        r#"#!/bin/busybox sh
PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in {modules}; do insmod /modules/$module; done
argument() {{ sed -n "s/.*enforcer\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }}
if mount -t virtiofs -o ro host /lower; then
    mount -t tmpfs tmpfs /upper
    mkdir /upper/files /upper/work
    mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /root
    mount --bind /dev /root/dev
    mkdir -p /root/dev/pts /root/dev/shm /root/dev/net
    mount -t devpts devpts /root/dev/pts
    mount -t tmpfs tmpfs /root/dev/shm
    mount -t proc proc /root/proc
    mount -t sysfs sysfs /root/sys
    mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
    mount -t tmpfs tmpfs /root/run
    mkdir -p /root/run/lock /root/run/netns /root/lib/modules
    mount --bind /root$(argument modules) /root/lib/modules
    ip link set lo up
    /sbin/modprobe tun
    ulimit -n 65536
    echo
    echo '{BEGIN}'
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot /root /bin/sh $(argument run)
    echo "{END}$?"
fi
sync
poweroff -f
"#
    )
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    fs::write(path, text).with_context(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(failed)
}

/// `find | cpio`.
fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let names = output(command("find").current_dir(root).args([".", "-mindepth", "1"]))
        .with_context(|| format!("cannot list {}", root.display()))?;
    let to = File::create(archive).with_context(|| format!("cannot make {}", archive.display()))?;
    let mut cpio = command("cpio")
        .current_dir(root)
        .args(["--create", "--format=newc", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(to)
        .spawn()
        .context("cannot start cpio")?;
    cpio.stdin.take().context("cpio reads nothing")?.write_all(names.as_bytes())?;
    if !cpio.wait()?.success() {
        bail!("cpio failed");
    }
    Ok(archive.to_owned())
}
