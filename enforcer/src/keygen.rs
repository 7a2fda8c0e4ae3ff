//! WireGuard keys as files, and the manifests that carry their public halves.

use std::{
    fs::{File, OpenOptions},
    io,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use x25519_dalek::{PublicKey, StaticSecret};

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("key file {}: cannot {action}", path.display())]
    File {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("key file {} has mode {mode:03o}, expected that nobody but its owner may read it: chmod 600 it", path.display())]
    Readable { path: PathBuf, mode: u32 },
    #[error("key file {} does not hold 32 bytes in base64", path.display())]
    Malformed { path: PathBuf },
}

/// Makes a private key, or reuses the one in the file, and prints the object with its public half.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    object: Object,
}

#[derive(Debug, clap::Subcommand)]
enum Object {
    /// Print a TunnelNode.
    Node {
        name: String,
        /// File of the private key; it is made with mode 0600 if it does not exist.
        #[arg(long)]
        key: PathBuf,
        /// Name of the cluster, as the agents have it in --cluster-name.
        #[arg(long, default_value = "default")]
        cluster: String,
    },
    /// Print a TunnelGateway.
    Gateway {
        name: String,
        /// File of the private key; it is made with mode 0600 if it does not exist.
        #[arg(long)]
        key: PathBuf,
        /// Where nodes reach the gateway.
        #[arg(long, value_name = "ADDRESS:PORT", required = true)]
        endpoint: Vec<SocketAddr>,
    },
}

/// Role main: prints the manifest.
#[expect(clippy::print_stdout, reason = "the manifest is the output of this command")]
pub fn run(args: &Args) -> anyhow::Result<()> {
    print!("{}", manifest(args)?);
    Ok(())
}

fn manifest(args: &Args) -> Result<String, KeyError> {
    Ok(match &args.object {
        Object::Node { name, key, cluster } => {
            node_manifest(name, cluster, &public_key(&ensure_private_key(key)?))
        }
        Object::Gateway { name, key, endpoint } => {
            gateway_manifest(name, endpoint, &public_key(&ensure_private_key(key)?))
        }
    })
}

fn node_manifest(name: &str, cluster: &str, public: &[u8; 32]) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\n\
         kind: TunnelNode\n\
         metadata:\n  name: {name:?}\n\
         spec:\n  publicKey: {}\n  cluster: {cluster:?}\n  node: {name:?}\n",
        encode_key(public)
    )
}

fn gateway_manifest(name: &str, endpoints: &[SocketAddr], public: &[u8; 32]) -> String {
    let endpoints: String = endpoints.iter().map(|endpoint| format!("  - \"{endpoint}\"\n")).collect();
    format!(
        "apiVersion: enforcer.dev/v1alpha1\n\
         kind: TunnelGateway\n\
         metadata:\n  name: {name:?}\n\
         spec:\n  publicKey: {}\n  endpoints:\n{endpoints}",
        encode_key(public)
    )
}

/// Public half of a private key.
pub fn public_key(private: &[u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*private)).to_bytes()
}

/// A key as `wg` and the manifests write it.
pub fn encode_key(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}

/// Reads [`encode_key`]'s text; `None` if it is something else.
pub fn decode_key(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

/// Reads a private key. A file that the group or others may read is refused: its key is no secret any more.
pub fn read_private_key(path: &Path) -> Result<[u8; 32], KeyError> {
    let failed = |action| move |source| KeyError::File { path: path.to_owned(), action, source };
    let mut file = File::open(path).map_err(failed("open it"))?;
    let mode = file.metadata().map_err(failed("read its mode"))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Readable { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed("read it"))?;
    decode_key(&text).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })
}

/// Reads the private key in this file, or makes one if there is none.
pub fn ensure_private_key(path: &Path) -> Result<[u8; 32], KeyError> {
    let failed = |action| move |source| KeyError::File { path: path.to_owned(), action, source };
    // `create_new` is O_EXCL: of two that start together one makes the key, the other reads it or says why not.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let key = random_key().map_err(failed("get random bytes for it"))?;
            let text = encode_key(&key) + "\n";
            file.write_all(text.as_bytes()).map_err(failed("write it"))?;
            file.sync_all().map_err(failed("write it to the disk"))?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_private_key(path),
        Err(error) => Err(failed("make it")(error)),
    }
}

fn random_key() -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    // What every X25519 does before use; clamped already, all tools show the same text.
    key[0] &= 248;
    key[31] = (key[31] & 127) | 64;
    Ok(key)
}

#[cfg(test)]
mod tests;
