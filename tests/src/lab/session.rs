//! A session with PostgreSQL that is open and busy, so that one can see how it ends.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitStatus},
};

use anyhow::{Result, bail};

use super::{Lab, Running, manifests::Service, query::Family, servers::USER, wait};

pub struct Session {
    process: Running,
    log: PathBuf,
}

impl Lab {
    /// A `psql` in a pod that has had its first answer and waits for a second that would take ten minutes.
    pub fn open_session(&self, pod: &str, log: &str) -> Result<Session> {
        self.open_session_over(pod, log, Family::V4)
    }

    pub fn open_session_over(&self, pod: &str, log: &str, family: Family) -> Result<Session> {
        let place = self.place(pod);
        let address = place.resolve(&Service::Postgres.fqdn(), family)?.unwrap_or_default();
        let mut psql = place.command("psql");
        psql.args(talk(&address));
        Session::watch(&mut psql, self.id.log(log))
    }
}

/// Arguments of `psql` for one answer at once, and a second in ten minutes.
pub fn talk(host: &str) -> [&str; 11] {
    ["-XAtq", "-h", host, "-U", USER, "-d", USER, "-c", "select 'open'", "-c", "select pg_sleep(600)"]
}

impl Session {
    /// Starts a command that runs such a `psql`, and waits for the first answer.
    pub fn watch(psql: &mut Command, log: PathBuf) -> Result<Self> {
        let process = Running::start(psql, &log)?;
        let mut session = Self { process, log };
        let open = wait::until("the session is open", || {
            let said = session.said();
            said.contains("open").then_some(Ok(())).or_else(|| session.process.ended().map(|_| Err(said)))
        });
        match open? {
            Ok(()) => Ok(session),
            Err(said) => bail!("the session ended: {}", said.trim()),
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it ends; `None` where it hangs. Also what it said after its first answer.
    pub fn end(mut self) -> Result<(Option<ExitStatus>, String)> {
        let end = wait::until("the session ends", || self.process.ended()).ok();
        let said = self.said().split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
        Ok((end, said))
    }

    pub fn is_open(&mut self) -> bool {
        self.process.ended().is_none()
    }
}
