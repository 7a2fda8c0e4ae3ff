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
use serde_json::Value;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::model::{self, Metadata, SourceMode, Spec, TunnelGatewaySpec, TunnelNodeSpec};

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
        /// Where nodes reach the gateway; may be given more than once.
        #[arg(long, value_name = "ADDRESS:PORT")]
        endpoint: Vec<SocketAddr>,
    },
}

/// Makes or reads the key and returns the object with its public half, as `create` would make it.
pub fn manifest(args: &Args) -> Result<Value, KeyError> {
    Ok(match &args.object {
        Object::Node { name, key, cluster } => {
            node_manifest(name, cluster, &public_key(&ensure_private_key(key)?))
        }
        Object::Gateway { name, key, endpoint } => {
            gateway_manifest(name, endpoint, &public_key(&ensure_private_key(key)?))
        }
    })
}

fn node_manifest(name: &str, cluster: &str, public: &[u8; 32]) -> Value {
    let spec =
        TunnelNodeSpec { public_key: encode_key(public), cluster: cluster.to_owned(), node: name.to_owned() };
    document(name, Spec::TunnelNode(spec))
}

fn gateway_manifest(name: &str, endpoints: &[SocketAddr], public: &[u8; 32]) -> Value {
    let spec = TunnelGatewaySpec {
        public_key: encode_key(public),
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        mtu: None,
        allowed_namespaces: Vec::new(),
        allowed_backends: Vec::new(),
        source_mode: SourceMode::default(),
        guarded_cidrs: Vec::new(),
        cross_namespace_sources: false,
    };
    document(name, Spec::TunnelGateway(spec))
}

fn document(name: &str, spec: Spec) -> Value {
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    model::Object { metadata, spec }.document()
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
    key[0] &= 0b1111_1000;
    key[31] = (key[31] & 0b0111_1111) | 0b0100_0000;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A file in a folder of this test, removed with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("enforcer-keygen-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn key(&self) -> PathBuf {
            self.0.join("key")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_new_key_is_for_its_owner_only_and_is_kept_the_second_time() {
        let folder = Folder::new("new");
        let first = ensure_private_key(&folder.key()).unwrap();
        let mode = std::fs::metadata(folder.key()).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(ensure_private_key(&folder.key()).unwrap(), first);
        assert_eq!(read_private_key(&folder.key()).unwrap(), first);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = Folder::new("readable");
        ensure_private_key(&folder.key()).unwrap();
        for mode in [0o640, 0o604] {
            std::fs::set_permissions(folder.key(), std::fs::Permissions::from_mode(mode)).unwrap();
            let error = ensure_private_key(&folder.key()).unwrap_err();
            assert!(matches!(error, KeyError::Readable { mode: found, .. } if found == mode), "{error}");
        }
    }

    #[test]
    fn a_file_that_holds_no_key_is_kept_and_refused() {
        let folder = Folder::new("malformed");
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.key()).unwrap();
        file.write_all(b"a shopping list\n").unwrap();
        assert!(matches!(ensure_private_key(&folder.key()), Err(KeyError::Malformed { .. })));
        assert_eq!(std::fs::read_to_string(folder.key()).unwrap(), "a shopping list\n");
    }

    #[test]
    fn the_public_half_is_the_one_of_rfc_7748() {
        let private = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
            0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ];
        assert_eq!(encode_key(&public_key(&private)), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }

    #[test]
    fn manifests_are_what_the_store_reads() {
        let key = [7; 32];
        assert_eq!(
            node_manifest("node-1", "yes: \"quoted\"", &key),
            serde_json::json!({
                "apiVersion": "enforcer.dev/v1alpha1", "kind": "TunnelNode", "metadata": {"name": "node-1"},
                "spec": {"publicKey": encode_key(&key), "cluster": "yes: \"quoted\"", "node": "node-1"},
            })
        );
        let endpoints = ["203.0.113.1:51820".parse().unwrap(), "[2001:db8::1]:51820".parse().unwrap()];
        let gateway = gateway_manifest("eu-1", &endpoints, &key);
        assert_eq!(
            gateway,
            serde_json::json!({
                "apiVersion": "enforcer.dev/v1alpha1", "kind": "TunnelGateway", "metadata": {"name": "eu-1"},
                "spec": {
                    "publicKey": encode_key(&key), "endpoints": ["203.0.113.1:51820", "[2001:db8::1]:51820"],
                    "allowedNamespaces": [], "allowedBackends": [], "sourceMode": "masquerade",
                    "crossNamespaceSources": false,
                },
            })
        );
        let text = serde_norway::to_string(&gateway).unwrap();
        assert_eq!(crate::source::manifests::read_text("gateway.yaml", &text).problems, []);
    }
}
