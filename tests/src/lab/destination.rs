//! One more destination beside the databases: a probe of the tests serves it, over TCP and UDP.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{
    Lab,
    manifests::{CLUSTER, PROJECT},
    network::{SERVER4, SERVER6},
    query::Family,
    wait,
};

/// A destination that the granted pods of the project may use.
#[derive(Clone, Debug)]
pub struct Destination<'a> {
    pub name: &'a str,
    /// Of both protocols.
    pub port: u16,
    /// IPv4 and IPv6.
    pub endpoints: [&'a str; 2],
}

impl<'a> Destination<'a> {
    /// On the services' host.
    pub fn new(name: &'a str, port: u16) -> Self {
        Self { name, port, endpoints: [SERVER4, SERVER6] }
    }

    fn yaml(&self, gateway: &str) -> String {
        let api = "apiVersion: enforcer.dev/v1alpha1";
        let Self { name, port, endpoints: [v4, v6] } = self;
        format!(
            "{api}\nkind: KeyValueStore\nmetadata: {{name: {name}, namespace: {PROJECT}}}\nspec:\n  \
             gateways: [{gateway}]\n  ports: [{{name: tcp, port: {port}, protocol: TCP}}, {{name: udp, port: {port}, \
             protocol: UDP}}]\n  endpoints:\n  - address: {v4}\n  - address: \"{v6}\"\n---\n{api}\n\
             kind: ServiceConnection\nmetadata: {{name: {name}, namespace: {PROJECT}}}\nspec:\n  \
             source: {{kind: KubernetesCluster, name: {CLUSTER}, podSelector: {{matchLabels: {{app: cart}}}}}}\n  \
             destination: {{kind: KeyValueStore, name: {name}}}\n"
        )
    }
}

impl Lab {
    /// Makes it known, starts its server (`probe` with these arguments) at a place, and waits until each of the pods
    /// has been able to connect. Returns its addresses, IPv4 and IPv6.
    pub fn serve(
        &mut self,
        destination: &Destination<'_>,
        part: &str,
        probe: &str,
        args: &[&str],
        pods: &[&str],
    ) -> Result<[SocketAddr; 2]> {
        let name = destination.name;
        // One that was there before holds the port.
        drop(self.processes.remove(name));
        let server = self.elsewhere(part).start_plain(probe, args, &self.id.log(name))?;
        self.processes.insert(name.into(), server);
        self.save(&format!("{name}.yaml"), &destination.yaml(&self.id.gateway()))?;
        let fqdn = format!("keyvaluestore-{name}.{PROJECT}.svc.cluster.local");
        let mut found = Vec::new();
        for family in Family::ALL {
            let address = wait::until("the destination has an address", || {
                self.place(pods[0]).resolve(&fqdn, family).ok().flatten()
            })?;
            let address = SocketAddr::new(address.parse()?, destination.port);
            for pod in pods {
                let connect = ["tcp-connect", &address.to_string()];
                wait::for_true("the destination is granted", || {
                    self.place(pod).run(probe, &connect).is_ok_and(|outcome| outcome.success)
                })
                .with_context(|| format!("{pod} to {address}"))?;
            }
            found.push(address);
        }
        Ok(found.try_into().expect("one of each family"))
    }
}
