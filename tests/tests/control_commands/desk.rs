//! A person at a shell, with a folder of objects.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use enforcer_tests::lab::enforcer;

pub struct Desk {
    pub dir: PathBuf,
}

/// What a command said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Desk {
    /// An empty folder `objects` in a folder of this test, where nothing of the machine's own configuration is found.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("enforcer-desk-{}-{number}", std::process::id()));
        fs::create_dir_all(dir.join("objects")).expect("a folder for the test");
        Self { dir }
    }

    pub fn objects(&self) -> PathBuf {
        self.dir.join("objects")
    }

    /// The binary, called from the folder of the test, so that messages have short paths.
    pub fn command(&self) -> Command {
        let mut command = Command::new(enforcer().expect("the binary is built"));
        command.current_dir(&self.dir).env("HOME", &self.dir).env_remove("KUBECONFIG");
        command.env_remove("KUBERNETES_SERVICE_HOST");
        command
    }

    /// Runs a line of words; what is in single quotes is one.
    pub fn run(&self, line: &str) -> Said {
        said(self.command().args(words(line)).output().expect("it starts"))
    }

    /// The same on the folder.
    pub fn on_folder(&self, line: &str) -> Said {
        self.run(&format!("{line} --manifests objects"))
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.objects().join(name), text).expect("a file in the folder");
    }

    /// Every file of the folder, hidden ones as well, with its text.
    pub fn files(&self) -> Vec<(String, String)> {
        let read = |path: &Path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("a text"))
        };
        let entries = fs::read_dir(self.objects()).expect("the folder");
        let mut files: Vec<_> = entries.map(|entry| read(&entry.expect("an entry").path())).collect();
        files.sort_unstable();
        files
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' if !is_quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

impl Said {
    pub fn done(out: &str) -> Self {
        Self { code: Some(0), out: out.to_owned(), err: String::new() }
    }

    pub fn failed(code: i32, err: &str) -> Self {
        Self { code: Some(code), out: String::new(), err: err.to_owned() }
    }
}

pub const KEY: &str = "dp0N4/k2yqZb2yCnc3iUUL/4Lz+smQ0sKdnHmuHhumM=";

/// Lines of `create` without the place, one for each kind; `-n shop` where there is a project.
pub const EVERY_KIND: [&str; 9] = [
    "create gateway eu-1 --public-key dp0N4/k2yqZb2yCnc3iUUL/4Lz+smQ0sKdnHmuHhumM= --endpoint 192.0.2.1:51820 \
     --allowed-namespace shop,blog --allowed-backend 203.0.113.0/24:5432,3306,6379 --guarded-cidr 203.0.113.0/24",
    "create keyvaluestore cache -n shop --gateway eu-1 --endpoint 203.0.113.12 --port redis=6379:6380",
    "create mysql crm -n shop --gateway eu-1 --endpoint 203.0.113.11",
    "create mysqldatabase customers -n shop --instance crm",
    "create postgres orders -n shop --gateway eu-1 --endpoint 203.0.113.10",
    "create postgresdatabase carts -n shop --instance orders --database shop_carts",
    "create application web -n shop --pod-selector app=web --service cache=keyvaluestore/cache,db=pgdb/carts",
    "create kubernetescluster blue -n shop --cluster-name blue-1",
    "create serviceconnection cart-orders -n shop --source=kubernetescluster/my-cluster \
     --destination=postgres/orders --source-pod-selector='app=cart,tier in (web,api),!old' \
     --source-namespace-selector=kubernetes.io/metadata.name=production --port 5432 \
     --valid-until 2037-01-01T00:00:00Z",
];
