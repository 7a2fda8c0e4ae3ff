//! The one lab of this binary, and the state that every test finds it in.

use std::{
    net::{IpAddr, SocketAddr},
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

use anyhow::{Context, Result};
use enforcer_tests::lab::{Lab, Outcome, Pod, Role, manifests::Service, query::Family};

static LAB: Mutex<Option<Lab>> = Mutex::new(None);

/// The lab while a test uses it.
pub struct Turn(MutexGuard<'static, Option<Lab>>);

impl Deref for Turn {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.0.as_ref().expect("there is a lab while somebody has the turn")
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Lab {
        self.0.as_mut().expect("there is a lab while somebody has the turn")
    }
}

/// A test that failed shows what the roles had to say; the lab itself lives on in a static.
impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
    }
}

/// Waits for the turn and brings the lab to its first state. After a test that failed, that is a new lab.
pub fn lab() -> Turn {
    static AT_EXIT: Once = Once::new();
    AT_EXIT.call_once(|| {
        // A static is never dropped, and the test harness leaves by `exit`.
        // SAFETY: `remove` is a function of this binary that takes nothing and returns.
        unsafe { libc::atexit(remove) };
    });
    let mut guard = LAB.lock().unwrap_or_else(|poisoned| {
        LAB.clear_poison();
        let mut guard = PoisonError::into_inner(poisoned);
        *guard = None;
        guard
    });
    if guard.is_none() {
        *guard = Some(new().expect("the lab comes up"));
    }
    let mut turn = Turn(guard);
    reset(&mut turn).expect("the lab becomes ready");
    turn
}

extern "C" fn remove() {
    LAB.lock().unwrap_or_else(PoisonError::into_inner).take();
}

fn new() -> Result<Lab> {
    let cart = [("app", "cart")];
    let mut lab = Lab::new(&[
        Pod::new("shop", "cart", &cart),
        Pod::new("shop", "audit", &[("app", "audit")]),
        Pod::new("other", "stray", &cart),
        Pod::new("shop", "plain", &[]),
        Pod::new("shop", "hostnet", &cart).host_network(),
    ])?;
    lab.start_servers()?;
    lab.save_tunnel_ends("")?;
    Ok(lab)
}

fn reset(lab: &mut Lab) -> Result<()> {
    lab.save_objects()?;
    lab.save_tunnel_ends("")?;
    for service in Service::ALL {
        lab.grant(service)?;
    }
    for role in Role::ALL {
        if !lab.processes.contains_key(role.name()) {
            lab.start(role)?;
        }
    }
    lab.wait_ready()?;
    if !lab.processes.contains_key("monitor") {
        lab.start_monitor(Role::Agent)?;
    }
    Ok(())
}

/// A probe of `enforcer-lab` in a pod.
pub fn probe(lab: &Lab, pod: &str, args: &[&str]) -> Outcome {
    lab.place(pod).run(env!("CARGO_BIN_EXE_enforcer-lab"), args).expect("the probe starts")
}

/// Where a pod finds a service.
pub fn address(lab: &Lab, pod: &str, service: Service, family: Family) -> Result<SocketAddr> {
    let address = lab.place(pod).resolve(&service.fqdn(), family)?;
    let address: IpAddr = address.with_context(|| format!("{} is not known", service.fqdn()))?.parse()?;
    Ok(SocketAddr::new(address, service.port()))
}
