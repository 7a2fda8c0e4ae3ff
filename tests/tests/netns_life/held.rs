//! A server that holds connections and datagrams, clients that hold the other end, and a namespace inside a pod.

use std::{
    fs,
    net::SocketAddr,
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::lab::{
    Lab, Place, Pod, Running,
    manifests::PROJECT,
    network::{SERVER4, SERVER6, add_netns, ip, sysctl},
    query::Family,
    wait,
};

pub const TCP_PORT: u16 = 7700;
pub const UDP_PORT: u16 = 7701;
const LAB: &str = env!("CARGO_BIN_EXE_enforcer-lab");
/// What has to happen within a second gets this long on a machine that does other things as well.
const SOON: Duration = Duration::from_secs(10);

/// Asks until there is an answer, for [`SOON`].
pub fn soon<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || start.elapsed() > SOON {
            return answer;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The destination `held`, its servers, and a connection of the same name that grants it to pods with `app: cart`.
pub fn serve(lab: &mut Lab) {
    for (name, args) in
        [("held", ["hold-serve", &TCP_PORT.to_string()]), ("held-udp", ["udp-echo", &UDP_PORT.to_string()])]
    {
        if !lab.processes.contains_key(name) {
            let server = lab.elsewhere("svc").start_plain(LAB, &args, &lab.id.log(name));
            lab.processes.insert(name.into(), server.expect("the server starts"));
        }
    }
    wait::for_true("the server listens", || lab.log("held").contains("listening")).expect("it listens");
    destination(lab, "held", &[&lab.id.gateway()], TCP_PORT);
    connection(lab, "held", "held", "{matchLabels: {app: cart}}");
}

/// A destination with these gateways, reached at this TCP port.
pub fn destination(lab: &Lab, name: &str, gateways: &[&str], port: u16) {
    let yaml = format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: KeyValueStore\nmetadata: {{name: {name}, namespace: {PROJECT}}}\n\
         spec:\n  gateways: [{}]\n  ports:\n  - {{name: tcp, port: {port}, targetPort: {TCP_PORT}, protocol: TCP}}\n  \
         - {{name: udp, port: {UDP_PORT}, protocol: UDP}}\n  endpoints:\n  - address: {SERVER4}\n  \
         - address: \"{SERVER6}\"\n",
        gateways.join(", "),
    );
    lab.save(&format!("{name}.yaml"), &yaml).expect("the destination is saved");
}

/// A connection to a destination from the project's pods that this selector selects.
pub fn connection(lab: &Lab, name: &str, destination: &str, selector: &str) {
    let yaml = format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: ServiceConnection\nmetadata: {{name: {name}, namespace: {PROJECT}}}\n\
         spec:\n  source: {{kind: KubernetesCluster, name: lab, podSelector: {selector}}}\n  \
         destination: {{kind: KeyValueStore, name: {destination}}}\n"
    );
    lab.save(&format!("connection-{name}.yaml"), &yaml).expect("the connection is saved");
}

/// Where `held` is for pods.
pub fn address(lab: &Lab, family: Family, port: u16) -> SocketAddr {
    address_of(lab, "held", family, port)
}

pub fn address_of(lab: &Lab, destination: &str, family: Family, port: u16) -> SocketAddr {
    let name = format!("keyvaluestore-{destination}.{PROJECT}.svc.cluster.local");
    let found =
        wait::until("the name is known", || lab.place("cart").resolve(&name, family).ok()??.parse().ok());
    SocketAddr::new(found.expect("the name is known"), port)
}

/// One held connection.
pub struct Held {
    pub tag: String,
    process: Running,
}

impl Held {
    /// Tries until it is open: the grant may be younger than the call.
    pub fn open(lab: &Lab, place: &Place, to: SocketAddr, mode: &str, tag: &str) -> Self {
        let log = lab.id.log(tag);
        let tag = tag.to_owned();
        let process = wait::until("the connection is open", || {
            let _ = fs::remove_file(&log);
            let to = to.to_string();
            let args = if mode == "udp" { vec!["hold-udp", &to] } else { vec!["hold", &to, mode, &tag] };
            let mut process = place.start_plain(LAB, &args, &log).expect("the client starts");
            let decided = soon(|| {
                let open = fs::read_to_string(&log).is_ok_and(|text| text.contains("open"));
                if open { Some(true) } else { process.ended().map(|_| false) }
            });
            (decided == Some(true)).then_some(process)
        });
        let said = fs::read_to_string(&log).unwrap_or_default();
        Self { process: process.unwrap_or_else(|err| panic!("{tag}: {err:#}: {said}")), tag }
    }

    /// Whether a call from there is refused at once.
    pub fn is_refused(place: &Place, to: SocketAddr) -> bool {
        let outcome = place.run(LAB, &["tcp-connect", &to.to_string()]).expect("the client starts");
        outcome.was_not_permitted()
    }

    /// What it was told in the end; `None`: it hangs.
    pub fn end(&mut self, lab: &Lab) -> Option<String> {
        let _: ExitStatus = soon(|| self.process.ended())?;
        lab.log(&self.tag).lines().last().map(str::to_owned)
    }

    /// Address of the gateway that it goes through, as the server sees it.
    pub fn through(&self, lab: &Lab) -> String {
        lab.log(&self.tag)
            .lines()
            .find_map(|line| line.strip_prefix("open ok "))
            .unwrap_or_default()
            .to_owned()
    }

    pub fn is_open(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// What the server was told of it; `None`: it still holds.
    pub fn far_end(&self, lab: &Lab) -> Option<String> {
        let start = format!("{} ended ", self.tag);
        soon(|| lab.log("held").lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned))
    }
}

/// A namespace inside a pod, behind its address: no socket of it is in the pod's own tables.
pub struct Nested<'a> {
    lab: &'a Lab,
    pod: Pod,
    name: String,
}

impl<'a> Nested<'a> {
    pub fn new(lab: &'a Lab, pod: &str) -> Self {
        let nested = Self { lab, pod: lab.pod(pod).clone(), name: lab.id.netns("inner") };
        add_netns(&nested.name).expect("the namespace is made");
        let lines = format!(
            "link add inner0 type veth peer name eth0 netns {}
             addr add 10.77.0.1/24 dev inner0
             addr add fd77::1/64 dev inner0 nodad
             link set inner0 up",
            nested.name
        );
        ip(&nested.pod.netns, &lines).expect("the pod's end is made");
        sysctl(&nested.pod.netns, &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
            .expect("the pod forwards");
        let lines = "addr add 10.77.0.2/24 dev eth0
             addr add fd77::2/64 dev eth0 nodad
             link set eth0 up
             route add default via 10.77.0.1
             -6 route add default via fd77::1";
        ip(&nested.name, lines).expect("the inner end is made");
        nested.translate("-A");
        nested
    }

    fn translate(&self, how: &str) {
        let place = Place { netns: self.pod.netns.clone(), cgroup: self.lab.id.tools() };
        for program in ["iptables-legacy", "ip6tables-legacy"] {
            let args = ["-t", "nat", how, "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE"];
            let outcome = place.run(program, &args).expect("it starts");
            assert!(outcome.success, "{program}: {}", outcome.said());
        }
    }

    /// Its processes are the pod's.
    pub fn place(&self) -> Place {
        Place { netns: self.name.clone(), cgroup: self.pod.cgroup.clone() }
    }
}

impl Drop for Nested<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.translate("-D");
        }
        let _ = enforcer_tests::lab::command::run("ip", &["netns", "delete", &self.name]);
    }
}
