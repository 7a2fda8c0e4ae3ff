//! Keys and certificates of a cluster, and the kubeconfigs made of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::lab::command::finish;

/// Certificates outlive any test.
const DAYS: &str = "30";

/// A certificate authority with its files in one folder: `ca.crt`, `accounts.key` and `accounts.pub` (service accounts),
/// NAME.crt, NAME.key and NAME.kubeconfig.
#[derive(Clone, Debug)]
pub struct Authority {
    dir: PathBuf,
}

/// As the API server sees them.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    pub name: &'a str,
    pub groups: &'a [&'a str],
}

/// How a client of the API server says who it is.
#[derive(Clone, Debug)]
pub enum Credentials<'a> {
    /// A certificate of a name and its groups, made when the kubeconfig is.
    Certificate(User<'a>),
    Token(String),
}

impl Authority {
    /// Makes the authority and the key of the service accounts; a folder that has them keeps them.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let authority = Self { dir: dir.to_owned() };
        // The last that is made.
        if authority.path("accounts.pub").exists() {
            return Ok(authority);
        }
        // Without one of its own, openssl would add what the machine's configuration says.
        let config = authority.path("openssl.cnf");
        fs::write(&config, "[req]\ndistinguished_name = subject\n[subject]\n")
            .with_context(|| format!("cannot write {}", config.display()))?;
        let extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"];
        authority.certificate("ca", "/CN=enforcer-tests", None, &extensions)?;
        let (key, public) = (authority.path("accounts.key"), authority.path("accounts.pub"));
        let mut command = Command::new("openssl");
        command.args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        finish(command.arg("-out").arg(&key))?;
        finish(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(key).arg("-out").arg(public))?;
        Ok(authority)
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Certificate and key of a server with these addresses and names.
    pub fn serve(&self, name: &str, addresses: &[&str], names: &[&str]) -> Result<()> {
        let addresses = addresses.iter().map(|address| format!("IP:{address}"));
        let names = names.iter().map(|name| format!("DNS:{name}"));
        let all: Vec<String> = addresses.chain(names).collect();
        let alternatives = format!("subjectAltName={}", all.join(","));
        let subject = format!("/CN={name}");
        self.certificate(name, &subject, Some("ca"), &[&alternatives, "extendedKeyUsage=serverAuth"])
    }

    /// Certificate and key of a client.
    pub fn client(&self, name: &str, user: User) -> Result<()> {
        let groups: Vec<String> = user.groups.iter().map(|group| format!("/O={group}")).collect();
        let subject = format!("{}/CN={}", groups.concat(), user.name);
        self.certificate(name, &subject, Some("ca"), &["extendedKeyUsage=clientAuth"])
    }

    /// Writes NAME.kubeconfig and returns its path.
    pub fn kubeconfig(&self, name: &str, server: &str, credentials: &Credentials) -> Result<PathBuf> {
        let user = match credentials {
            Credentials::Certificate(user) => {
                self.client(name, *user)?;
                json!({
                    "client-certificate": self.path(&format!("{name}.crt")),
                    "client-key": self.path(&format!("{name}.key")),
                })
            }
            Credentials::Token(token) => json!({"token": token}),
        };
        let path = self.kubeconfig_path(name);
        let text = self.kubeconfig_document(server, &user).to_string();
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    pub fn kubeconfig_path(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.kubeconfig"))
    }

    fn kubeconfig_document(&self, server: &str, user: &Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "test",
                "cluster": {"server": server, "certificate-authority": self.path("ca.crt")},
            }],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        })
    }

    fn certificate(&self, name: &str, subject: &str, by: Option<&str>, extensions: &[&str]) -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        command.args(["-days", DAYS, "-subj", subject]);
        command.arg("-config").arg(self.path("openssl.cnf"));
        command.arg("-keyout").arg(self.path(&format!("{name}.key")));
        command.arg("-out").arg(self.path(&format!("{name}.crt")));
        if let Some(by) = by {
            command.arg("-CA").arg(self.path(&format!("{by}.crt")));
            command.arg("-CAkey").arg(self.path(&format!("{by}.key")));
        }
        for extension in extensions {
            command.args(["-addext", extension]);
        }
        finish(&mut command)?;
        Ok(())
    }
}
