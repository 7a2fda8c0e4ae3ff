//! `vm`: a command on another kernel.
//!
//! QEMU boots one of Debian's kernels on this machine's own file system: what is built and installed here is there as
//! well, what the command writes is forgotten. Its processor is emulated, so that it runs wherever QEMU does.

mod initramfs;
mod kernel;

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use self::kernel::Kernel;
use crate::{process, setup};

/// Kernels that Debian 12 has.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Version {
    /// The oldest that enforcer runs on
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
}

impl Version {
    pub const ALL: &[Self] = &[Self::V6_1, Self::V6_12];

    /// Debian's package that depends on the newest build of this version.
    const fn package(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-cloud-amd64",
            Self::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }
}

#[derive(clap::Args)]
pub struct Args {
    /// Which kernel
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Version,
    /// For `sh -c`, in the root of the workspace
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let status = run_on(args.kernel, &args.command.join(" "), |line| {
        let mut out = std::io::stdout().lock();
        out.write_all(line)?;
        out.write_all(b"\n")
    })?;
    if status != 0 {
        bail!("the command failed in the machine (exit status {status})");
    }
    Ok(())
}

/// What the first program of the machine prints before and after the command.
const BEGIN: &str = "enforcer-vm: begin";
const END: &str = "enforcer-vm: exit status ";

/// Longest time a machine lives.
const LIFETIME: Duration = Duration::from_hours(2);

/// Runs a shell command on a kernel and gives its lines away as they come. Returns its exit status.
pub fn run_on(
    version: Version,
    command: &str,
    mut each_line: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<i32> {
    if env::consts::ARCH != "x86_64" {
        bail!("the kernels that this task knows are for x86_64, this machine is {}", env::consts::ARCH);
    }
    setup::packages(setup::VM_PACKAGES)?;
    let dir = process::workspace().join("target/vm");
    let kernel = Kernel::fetch(&dir, version.package())?;
    let initramfs = initramfs::make(&dir, &kernel)?;
    eprintln!("vm: Linux {}", kernel.release);
    let script = dir.join(format!("run-{}.sh", std::process::id()));
    let text = format!("cd '{}' || exit 1\n{command}\n", process::workspace().display());
    fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
    let mut machine = Machine::boot(&dir, &kernel, &initramfs, &script)?;
    let status = machine.listen(&mut each_line);
    drop(machine);
    fs::remove_file(&script).with_context(|| format!("cannot remove {}", script.display()))?;
    status
}

/// A machine and the process that gives it this machine's files; both end with the value.
struct Machine {
    qemu: Child,
    console: Option<ChildStdout>,
    files: Child,
    socket: PathBuf,
}

impl Machine {
    fn boot(dir: &Path, kernel: &Kernel, initramfs: &Path, script: &Path) -> Result<Self> {
        let socket = dir.join(format!("files-{}.sock", std::process::id()));
        let log = fs::File::create(dir.join("virtiofsd.log")).context("cannot make the log of virtiofsd")?;
        let mut files = Command::new("/usr/lib/qemu/virtiofsd")
            .arg(format!("--socket-path={}", socket.display()))
            .args(["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start virtiofsd (package qemu-system-common)")?;
        let qemu = wait_for(&socket)
            .and_then(|()| qemu(kernel, initramfs, script, &socket).spawn().context("cannot start qemu"));
        match qemu {
            Ok(mut qemu) => Ok(Self { console: qemu.stdout.take(), qemu, files, socket }),
            Err(err) => {
                files.kill().and_then(|()| files.wait()).context("cannot end virtiofsd")?;
                Err(err)
            }
        }
    }

    /// Reads the console until the machine is off.
    fn listen(&mut self, each_line: &mut impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<i32> {
        let console = self.console.take().context("the console was read before")?;
        let (mut begun, mut status, mut boot) = (false, None, String::new());
        for line in BufReader::new(console).split(b'\n') {
            let line = line.context("cannot read the machine's console")?;
            let line = line.trim_ascii_end();
            let text = String::from_utf8_lossy(line);
            if let Some(code) = text.strip_prefix(END) {
                status = code.parse().ok();
            } else if begun && status.is_none() {
                each_line(line)?;
            } else if text == BEGIN {
                begun = true;
            } else {
                boot.push_str(&text);
                boot.push('\n');
            }
        }
        status.with_context(|| {
            let said = if begun { "" } else { boot.as_str() };
            format!("the machine went off before the command ended, or after {LIFETIME:?} {said}")
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Either may have ended by itself, which is as good.
        for process in [&mut self.qemu, &mut self.files] {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_file(&self.socket);
    }
}

fn qemu(kernel: &Kernel, initramfs: &Path, script: &Path, socket: &Path) -> Command {
    let cpus = thread::available_parallelism().map_or(1, usize::from).min(4);
    // Each goes with the one that started it: killing `timeout` alone would leave the machine running.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "timeout", "--signal=KILL", &LIFETIME.as_secs().to_string()])
        .args(["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", &cpus.to_string(), "-m", "3072"])
        .args(["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"])
        // The process that serves the files shares the machine's memory.
        .args([
            "-object",
            "memory-backend-memfd,id=memory,size=3072M,share=on",
            "-numa",
            "node,memdev=memory",
        ])
        .arg("-chardev")
        .arg(format!("socket,id=files,path={}", socket.display()))
        .args(["-device", "vhost-user-fs-pci,chardev=files,tag=host"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-append")
        // The self-tests of the ciphers take minutes on an emulated processor.
        .arg(format!(
            "console=ttyS0 quiet panic=-1 cryptomgr.notests rcupdate.rcu_cpu_stall_suppress=1 \
             enforcer.modules={} enforcer.run={}",
            kernel.modules.display(),
            script.display()
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    qemu
}

fn wait_for(socket: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        if Instant::now() > end {
            bail!("virtiofsd made no {} within 10 s", socket.display());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
