//! A session with PostgreSQL that is open and busy, so that one can see how it ends.

use std::process::{Command, ExitStatus};

use anyhow::Result;

use super::{Lab, Running, manifests::Service, query::Family, servers::USER, wait};

pub struct Session {
    process: Running,
    log: String,
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
        self.watch_session(&mut psql, log)
    }

    /// The same of a command that runs such a `psql`.
    pub fn watch_session(&self, psql: &mut Command, log: &str) -> Result<Session> {
        let process = Running::start(psql, &self.id.log(log))?;
        let session = Session { process, log: log.to_owned() };
        wait::for_true("the session is open", || self.log(log).contains("open"))?;
        Ok(session)
    }
}

/// Arguments of `psql` for one answer at once, and a second in ten minutes.
pub fn talk(host: &str) -> [&str; 11] {
    ["-XAtq", "-h", host, "-U", USER, "-d", USER, "-c", "select 'open'", "-c", "select pg_sleep(600)"]
}

impl Session {
    /// Waits until it ends; `None` where it hangs. Also what it said after its first answer.
    pub fn end(mut self, lab: &Lab) -> Result<(Option<ExitStatus>, String)> {
        let end = wait::until("the session ends", || self.process.ended()).ok();
        let said = lab.log(&self.log).split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
        Ok((end, said))
    }

    pub fn is_open(&mut self) -> bool {
        self.process.ended().is_none()
    }
}
