//! Builds the BPF object with the nightly toolchain and hands its path to the crate as `ENFORCER_BPF_OBJECT`.
//!
//! Not `aya-build`: that turns every line of a clean inner build into a warning of the outer one.

use std::{env, path::PathBuf, process::Command};

fn main() {
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = manifest_dir.parent().expect("the crate lies in the workspace");
    for path in ["enforcer-ebpf/src", "enforcer-ebpf/Cargo.toml", "enforcer-common/src", "Cargo.toml"] {
        println!("cargo:rerun-if-changed={}", workspace.join(path).display());
    }
    let target_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("bpf");
    // The outer cargo's settings are for the host's toolchain.
    let outer = env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("CARGO") || name.starts_with("RUST") && name != "RUSTUP_HOME"
        })
        .filter(|name| name != "CARGO_HOME");
    let mut build = Command::new("rustup");
    for name in outer {
        build.env_remove(name);
    }
    let build = build
        .args(["run", "nightly", "cargo", "build", "--package=enforcer-ebpf", "--profile=bpf"])
        .args(["--target=bpfel-unknown-none", "-Zbuild-std=core", "--target-dir"])
        .arg(&target_dir)
        .current_dir(workspace)
        // BTF is what `bpftool` and CO-RE read. In the linker's default, "in order", LLVM calls a loop over single bytes
        // for every few words that are set to zero: a third of what the hot paths cost. The rest is aya's own build.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "--cfg=bpf_target_arch=\"x86_64\"\u{1f}-Cdebuginfo=2\u{1f}-Clink-arg=--btf\u{1f}\
             -Clink-arg=--disable-expand-memcpy-in-order",
        )
        .output()
        .expect("rustup runs (see `cargo xtask setup`)");
    assert!(
        build.status.success(),
        "the BPF object does not build:\n{}",
        String::from_utf8_lossy(&build.stderr)
    );
    let object = target_dir.join("bpfel-unknown-none/bpf/enforcer-ebpf");
    println!("cargo:rustc-env=ENFORCER_BPF_OBJECT={}", object.display());
}
