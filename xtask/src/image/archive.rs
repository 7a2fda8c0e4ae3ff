//! An image as one file that container engines load: an OCI layout that is a docker-archive as well.
//!
//! Made with GNU tar; the same folder gives the same bytes, whenever and by whomever its files were made.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::process::{self, command, output};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image of one layer.
pub struct Image<'a> {
    pub name: &'a str,
    /// How it is run, as in `config` of an image's configuration.
    pub config: Value,
    /// Everything that is in it.
    pub root: &'a Path,
}

/// What was written.
#[derive(Debug, Eq, PartialEq)]
pub struct Written {
    /// Of the manifest: what engines show.
    pub digest: String,
    /// Of the file.
    pub size: u64,
}

impl Image<'_> {
    pub fn write(&self, tar: &Path) -> Result<Written> {
        let aside = tar.with_extension("layout");
        if aside.exists() {
            fs::remove_dir_all(&aside).with_context(|| format!("cannot remove {}", aside.display()))?;
        }
        let layout = Layout { dir: aside };
        fs::create_dir_all(layout.dir.join("blobs/sha256"))
            .with_context(|| format!("cannot make {}", layout.dir.display()))?;
        let digest = self.fill(&layout)?;
        let partial = tar.with_extension("partial");
        pack(&layout.dir, &partial)?;
        fs::rename(&partial, tar).with_context(|| format!("cannot rename to {}", tar.display()))?;
        fs::remove_dir_all(&layout.dir).with_context(|| format!("cannot remove {}", layout.dir.display()))?;
        Ok(Written { digest, size: size(tar)? })
    }

    /// Returns the digest of the manifest.
    fn fill(&self, layout: &Layout) -> Result<String> {
        let plain = layout.dir.join("layer");
        pack(self.root, &plain)?;
        let content = digest(&plain)?;
        // Without the name and time of the file.
        process::run(command("gzip").args(["--no-name", "--force", "--suffix=.gz"]).arg(&plain))?;
        let layer = layout.take(&plain.with_extension("gz"), LAYER)?;
        let architecture = match env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = layout.add(
            &json!({
                "architecture": architecture,
                "config": self.config,
                "created": "1970-01-01T00:00:00Z",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [content]},
            }),
            CONFIG,
        )?;
        let manifest = layout.add(
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}),
            MANIFEST,
        )?;
        let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
        let docker = json!([{
            "Config": blob(&config), "Layers": [blob(&layer)], "RepoTags": [self.name],
        }]);
        let mut named = manifest;
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        named["annotations"] =
            json!({"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag});
        layout.write("index.json", &json!({"schemaVersion": 2, "manifests": [named]}))?;
        layout.write("manifest.json", &docker)?;
        layout.write("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        Ok(digest)
    }
}

/// The folder that becomes the file.
struct Layout {
    dir: PathBuf,
}

impl Layout {
    fn write(&self, name: &str, document: &Value) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, document.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn add(&self, document: &Value, kind: &str) -> Result<Value> {
        let path = self.write("document", document)?;
        self.take(&path, kind)
    }

    /// Gives a file the name of what is in it, and returns its descriptor.
    fn take(&self, path: &Path, kind: &str) -> Result<Value> {
        let descriptor = json!({"mediaType": kind, "digest": digest(path)?, "size": size(path)?});
        let name = self.dir.join(blob(&descriptor));
        fs::rename(path, &name).with_context(|| format!("cannot rename to {}", name.display()))?;
        Ok(descriptor)
    }
}

/// Where a layout has what is described.
fn blob(descriptor: &Value) -> String {
    format!("blobs/{}", descriptor["digest"].as_str().unwrap_or_default().replace(':', "/"))
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len())
}

fn digest(path: &Path) -> Result<String> {
    let said = output(command("sha256sum").arg(path));
    let said = said.with_context(|| format!("sha256sum cannot read {}", path.display()))?;
    // It escapes names of files with a backslash before the digest.
    let digest = said.trim_start_matches('\\').split(' ').next().unwrap_or_default();
    Ok(format!("sha256:{digest}"))
}

/// Everything in the folder, in the order of names, owned by root and of no time.
fn pack(dir: &Path, tar: &Path) -> Result<()> {
    process::run(
        command("tar")
            .args(["--create", "--format=ustar", "--sort=name", "--mtime=@0", "--mode=u=rwX,go=rX"])
            .args(["--owner=0", "--group=0", "--numeric-owner"])
            .arg("--file")
            .arg(tar)
            .arg("--directory")
            .arg(dir)
            .args(names(dir)?),
    )
}

fn names(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(PathBuf::from(entry?.file_name()));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, thread, time::Duration};

    use serde_json::json;

    use super::{Image, Written};

    fn write(root: &Path, tar: &Path) -> (Written, Vec<u8>) {
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("program"), "does nothing").unwrap();
        let image = Image { name: "example.org/nothing:1", config: json!({}), root };
        let written = image.write(tar).unwrap();
        (written, fs::read(tar).unwrap())
    }

    #[test]
    fn the_same_files_make_the_same_image_at_any_time() {
        let dir = std::env::temp_dir().join(format!("enforcer-image-{}", std::process::id()));
        let first = write(&dir.join("one"), &dir.join("one.tar"));
        thread::sleep(Duration::from_millis(1100));
        let second = write(&dir.join("two"), &dir.join("two.tar"));
        fs::remove_dir_all(&dir).unwrap();

        assert_eq!(first.0, second.0);
        assert!(first.1 == second.1, "two files of {} and {} bytes differ", first.1.len(), second.1.len());
    }
}
