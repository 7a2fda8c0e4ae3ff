//! enforcer on that cluster, with its gateway on a node of its own and PostgreSQL beside the gateway.

use std::{env, fs, io::Write as _};

use anyhow::{Context as _, Result, bail};
use enforcer_tests::{
    cluster::{
        client::Client,
        enforcer::NAMESPACE,
        pods::{self, Pod},
    },
    lab::{query::Answer, wait},
    objects,
};
use serde_json::{Value, json};

use crate::traces;

pub const PROJECT: &str = "enforcer-test-shop";
pub const OTHER: &str = "enforcer-test-other";
/// Of what is no part of what is tested: the database, and who looks at nodes.
pub const BESIDE: &str = "enforcer-test-beside";
const NAMESPACES: [&str; 3] = [PROJECT, OTHER, BESIDE];
const CLUSTER: &str = "existing";
const GATEWAY: &str = "eu-test";
const PORT: u16 = 51820;
/// Nodes of gateways have it, with nothing as its value.
pub const LABEL: &str = "enforcer.dev/gateway";

/// Removes everything when it goes.
pub struct World {
    pub client: Client,
    /// What pods call the database.
    pub host: String,
    pub gateway_node: String,
    image: String,
    postgres: String,
    is_removed: bool,
}

impl World {
    /// Installs everything in the cluster that the environment names; `None`, and said so, where it names none.
    pub fn of_tests() -> Result<Option<Self>> {
        let Some(kubectl) = env::var_os("ENFORCER_KUBECTL") else {
            let required = env::var_os("ENFORCER_REQUIRE_ALL").is_some();
            assert!(
                !required,
                "ENFORCER_KUBECTL is not set: run `cargo xtask cluster test` with KUBECONFIG set"
            );
            // Past the capture of the test harness.
            let _ = writeln!(
                std::io::stderr(),
                "SKIP: KUBECONFIG names no cluster for `cargo xtask cluster test`"
            );
            return Ok(None);
        };
        let logs = env::temp_dir().join(format!("enforcer-test-{}", std::process::id()));
        let client = Client::here(kubectl.into(), logs);
        refuse_if_in_use(&client)?;
        let gateway_node = gateway_node(&client)?;
        let image = env::var("ENFORCER_IMAGE").context("ENFORCER_IMAGE: expected REPOSITORY:TAG")?;
        let postgres = env::var("ENFORCER_POSTGRES_IMAGE").unwrap_or_else(|_| "postgres:15".into());
        fs::create_dir_all(&client.logs).context("cannot make a folder for logs")?;
        let mut world =
            Self { client, host: String::new(), gateway_node, image, postgres, is_removed: false };
        world.build()?;
        Ok(Some(world))
    }

    fn build(&mut self) -> Result<()> {
        let settings = self.settings()?;
        let install: Vec<&str> = ["install"].into_iter().chain(settings.iter().map(String::as_str)).collect();
        self.client.apply(&self.client.enforcer(&install)?)?;
        self.client.apply(&objects::namespaces(&NAMESPACES))?;
        self.make_gateway()?;
        self.start(&self.database()?)?;
        for part in
            ["deployment/enforcer-controller", "daemonset/enforcer-agent", "deployment/enforcer-gateway"]
        {
            self.client.rolled_out(part, NAMESPACE)?;
        }
        let database = self.database_address()?;
        self.allow(&database)?;
        self.client.wait_for(["tunnelgateway", GATEWAY, ""], "Ready", "True Ready: ")?;
        let mine =
            objects::postgres(PROJECT, GATEWAY, &database) + &objects::connection(PROJECT, CLUSTER, "web");
        self.client.apply_soon(&mine)?;
        self.client.wait_for(["postgres", "pg", PROJECT], "Ready", "True Ready: ")?;
        self.client.wait_for(["serviceconnection", "web", PROJECT], "Ready", "True Ready: ")?;
        let postgres = self.client.get("postgres", "pg", PROJECT)?;
        let host = postgres["status"]["privateNetworkingFQDN"].as_str();
        host.context("the database has no name")?.clone_into(&mut self.host);
        Ok(())
    }

    /// What `install` is told.
    fn settings(&self) -> Result<Vec<String>> {
        let (repository, tag) = self
            .image
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.contains('/'))
            .with_context(|| format!("ENFORCER_IMAGE is {}, expected REPOSITORY:TAG", self.image))?;
        let more = env::var("ENFORCER_SET").unwrap_or_default();
        let settings = [
            format!("clusterName={CLUSTER}"),
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            "gateway.enabled=true".into(),
            format!("gateway.name={GATEWAY}"),
            format!("gateway.port={PORT}"),
        ];
        let all = settings.into_iter().chain(more.split_whitespace().map(str::to_owned));
        Ok(all.flat_map(|setting| ["--set".into(), setting]).collect())
    }

    /// Its key, in a Secret, and its object.
    fn make_gateway(&self) -> Result<()> {
        let node = self.client.get("node", &self.gateway_node, "")?;
        let address = node["status"]["addresses"]
            .as_array()
            .and_then(|all| all.iter().find(|address| address["type"] == "InternalIP")?["address"].as_str())
            .with_context(|| format!("the node {} has no InternalIP", self.gateway_node))?;
        let endpoint =
            if address.contains(':') { format!("[{address}]:{PORT}") } else { format!("{address}:{PORT}") };
        let key = self.client.logs.join("key");
        let path = key.display().to_string();
        let object =
            self.client.enforcer(&["keygen", "gateway", GATEWAY, "--key", &path, "--endpoint", &endpoint])?;
        let secret = format!("--from-file=key={path}");
        let args = ["--namespace", NAMESPACE, "create", "secret", "generic", "enforcer-gateway", &secret];
        self.client.kubectl(&args)?;
        self.client.apply_soon(&object)
    }

    fn allow(&self, database: &str) -> Result<()> {
        let length = if database.contains(':') { 128 } else { 32 };
        let allowed = json!({ "spec": {
            "allowedNamespaces": [PROJECT],
            "allowedBackends": [{ "cidr": format!("{database}/{length}"), "ports": [{ "port": 5432 }] }],
        } });
        let patch = ["patch", "tunnelgateway", GATEWAY, "--type", "merge", "--patch", &allowed.to_string()];
        self.client.kubectl(&patch).map(drop)
    }

    /// A pod's `spec` with `sh`, PostgreSQL and its clients.
    fn postgres(&self, command: &[&str]) -> Result<Value> {
        if self.postgres == pods::MACHINE {
            return pods::machine(command);
        }
        let main = json!({
            "name": "main", "image": self.postgres, "imagePullPolicy": "IfNotPresent", "command": command,
            // Read by the image that Docker calls official.
            "env": [{ "name": "POSTGRES_HOST_AUTH_METHOD", "value": "trust" }, { "name": "POSTGRES_USER", "value": "app" }],
        });
        Ok(json!({ "containers": [main] }))
    }

    /// The server, on the gateway's node, so that no network of pods is between the two.
    fn database(&self) -> Result<Value> {
        let mut spec = self.postgres(&["sh", "-c", include_str!("database.sh")])?;
        spec["nodeName"] = json!(self.gateway_node);
        spec["tolerations"] = json!([{ "operator": "Exists" }]);
        spec["terminationGracePeriodSeconds"] = json!(0);
        Ok(pod("database", BESIDE, "database", &spec))
    }

    /// Waits until the server answers, and says where.
    fn database_address(&self) -> Result<String> {
        let ask = [&pods::PROGRAMS[..], &["psql", "-h", "127.0.0.1", "-U", "app", "-c", "select 1"]].concat();
        let ask = [&["--namespace", BESIDE, "exec", "database", "--"][..], &ask].concat();
        let mut last = String::new();
        let answer =
            wait::until_within(enforcer_tests::cluster::client::WATCHDOG, "PostgreSQL answers", || {
                let asked = self.client.kubectl(&ask).map_err(|err| last = format!("{err:#}"));
                let missing = self.client.image_is_there(BESIDE).err().map(Err);
                asked.ok().map(|_| Ok(())).or(missing)
            });
        let logs = || {
            self.client.kubectl(&["--namespace", BESIDE, "logs", "--tail=20", "database"]).unwrap_or_default()
        };
        answer.with_context(|| format!("{last}\n{}", logs()))??;
        let pod = self.client.get("pod", "database", BESIDE)?;
        pod["status"]["podIP"].as_str().map(str::to_owned).context("the database has no address")
    }

    fn start(&self, pod: &Value) -> Result<()> {
        self.client.kubectl_with(&["create", "--filename", "-"], &pod.to_string()).map(drop)
    }

    /// Lets pods with this label `app` use the database, with the command that people use.
    pub fn grant(&self, app: &str) -> Result<()> {
        let args = [
            "create",
            "serviceconnection",
            app,
            "--namespace",
            PROJECT,
            &format!("--source=KubernetesCluster/{CLUSTER}"),
            &format!("--source-pod-selector=app={app}"),
            "--destination=Postgres/pg",
            "--wait",
        ];
        self.client.enforcer(&args).map(drop)
    }

    /// A running pod where agents are, with `psql` in it.
    pub fn pod(&self, name: &str, namespace: &str, app: &str) -> Result<Pod<'_>> {
        let spec = self.postgres(&["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"])?;
        let pod = self.ordinary(name, namespace, app, spec)?;
        pod.wait("Running")?;
        Ok(pod)
    }

    fn ordinary(&self, name: &str, namespace: &str, app: &str, mut spec: Value) -> Result<Pod<'_>> {
        let elsewhere = json!([{ "matchExpressions": [{ "key": LABEL, "operator": "DoesNotExist" }] }]);
        spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] =
            elsewhere;
        let pod = pod(name, namespace, app, &spec);
        Pod::start(&self.client, &pod["metadata"], spec)
    }

    /// An Application, and a pod of it that asks the database and ends.
    pub fn application(&self, name: &str) -> Result<Pod<'_>> {
        self.client.apply(&objects::application(PROJECT))?;
        self.client.wait_for(["application", name, PROJECT], "Ready", "True Ready: ")?;
        let ask = "until psql -XAtqU app \"$DB_URL\" -c 'select 1'; do sleep 0.2; done";
        let mut spec = self.postgres(&[&pods::PROGRAMS[..], &["sh", "-c", ask]].concat())?;
        spec["restartPolicy"] = json!("Never");
        spec["containers"][0]["envFrom"] =
            json!([{ "configMapRef": { "name": format!("{name}-services") } }]);
        self.ordinary(name, PROJECT, name, spec)
    }

    /// Asks the database from the pod until this is the answer.
    pub fn wait_for(&self, pod: &Pod, wanted: &Answer) -> Result<()> {
        let mut last = String::new();
        let got = wait::until(&format!("the pod's answer is \"{wanted}\""), || {
            last = pod.query(&self.host).map_or_else(|err| format!("{err:#}"), |answer| answer.to_string());
            (last == wanted.to_string()).then_some(())
        });
        got.with_context(|| format!("it is \"{last}\""))
    }

    /// A pod in the node's own network, with the host's `/run`, `/sys/fs/bpf` and `/var/lib`, that sleeps.
    pub fn watcher(&self, node: &str) -> Result<String> {
        let mut spec = self.postgres(&["sleep", "1000000"])?;
        spec["nodeName"] = json!(node);
        spec["hostNetwork"] = json!(true);
        spec["tolerations"] = json!([{ "operator": "Exists" }]);
        spec["terminationGracePeriodSeconds"] = json!(0);
        for (name, path) in [("run", "/run"), ("bpf", "/sys/fs/bpf"), ("state", "/var/lib")] {
            let mount = json!({ "name": name, "mountPath": format!("/host/{name}"), "readOnly": true, "mountPropagation": "HostToContainer" });
            let volume = json!({ "name": name, "hostPath": { "path": path, "type": "Directory" } });
            for (list, item) in [("volumeMounts", mount), ("volumes", volume)] {
                let holder = if list == "volumes" { &mut spec } else { &mut spec["containers"][0] };
                match holder[list].as_array_mut() {
                    Some(all) => all.push(item),
                    None => holder[list] = json!([item]),
                }
            }
        }
        let name = format!("watcher-{node}");
        self.start(&pod(&name, BESIDE, "watcher", &spec))?;
        Ok(name)
    }

    /// Takes everything away; what is left is an error.
    pub fn remove(mut self) -> Result<()> {
        let look = traces::Look::at(&self)?;
        self.uninstall()?;
        look.nothing_is_left(&self)?;
        self.is_removed = true;
        self.remove_namespaces()
    }

    fn uninstall(&self) -> Result<()> {
        // What an Application or a connection has is removed by the controller, while it runs.
        self.client.enforcer(&["uninstall", "--yes"]).map(drop)
    }

    fn remove_namespaces(&self) -> Result<()> {
        // That of the install goes already; it is waited for.
        let args = [&["delete", "namespace", "--ignore-not-found", NAMESPACE], &NAMESPACES[..]].concat();
        self.client.kubectl(&args)?;
        fs::remove_dir_all(&self.client.logs).context("cannot remove the folder of logs")
    }

    /// For whoever reads why it failed.
    fn tell(&self) {
        let said = |args: &[&str]| self.client.kubectl(args).unwrap_or_else(|err| format!("{err:#}"));
        eprintln!("{}", said(&["get", "pods", "--all-namespaces", "--output=wide"]));
        eprintln!("{}", said(&["--namespace", NAMESPACE, "get", "events", "--sort-by=.lastTimestamp"]));
        for part in
            ["daemonset/enforcer-agent", "deployment/enforcer-controller", "deployment/enforcer-gateway"]
        {
            eprintln!("--- {part}");
            let args = ["--namespace", NAMESPACE, "logs", "--all-containers", "--tail=20", part];
            eprintln!("{}", said(&args));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.is_removed {
            return;
        }
        self.tell();
        if let Err(err) = self.uninstall() {
            eprintln!("enforcer stays: {err:#}");
        }
        if let Err(err) = self.remove_namespaces() {
            eprintln!("namespaces {} stay: {err:#}", NAMESPACES.join(", "));
        }
    }
}

/// Whatever is there already is somebody's.
fn refuse_if_in_use(client: &Client) -> Result<()> {
    let found = client.kubectl(&["get", "customresourcedefinitions,namespaces", "--output=name"])?;
    let is_ours = |name: &&str| name.ends_with(".enforcer.dev") || *name == format!("namespace/{NAMESPACE}");
    if let Some(name) = found.lines().find(is_ours) {
        bail!(
            "{name} is there: enforcer is installed in this cluster, and this test would take it away; nothing was changed. \
             `enforcer uninstall --yes` removes it with all its objects"
        );
    }
    let is_test = |name: &&str| NAMESPACES.iter().any(|of| *name == format!("namespace/{of}"));
    match found.lines().find(is_test) {
        Some(name) => bail!("{name} is there, expected no such namespace: nothing was changed"),
        None => Ok(()),
    }
}

/// The node that the gateway will be on.
fn gateway_node(client: &Client) -> Result<String> {
    let names = |selector: &str| -> Result<Vec<String>> {
        let args = ["get", "nodes", "--selector", selector, "--output=jsonpath={.items[*].metadata.name}"];
        Ok(client.kubectl(&args)?.split_whitespace().map(str::to_owned).collect())
    };
    let (with, without) = (names(&format!("{LABEL}="))?, names(&format!("!{LABEL}"))?);
    let Some(node) = with.first() else {
        bail!(
            "no node has the label that gateways' nodes have: `kubectl label node NAME {LABEL}=` with one of {}; \
             agents keep away from it, so another node must be left for pods",
            without.join(", ")
        );
    };
    if without.is_empty() {
        bail!("every node has the label {LABEL}, expected one without: agents keep away from those");
    }
    Ok(node.clone())
}

fn pod(name: &str, namespace: &str, app: &str, spec: &Value) -> Value {
    let metadata = json!({ "name": name, "namespace": namespace, "labels": { "app": app } });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}
