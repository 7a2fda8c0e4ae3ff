//! Real servers on the services' host: PostgreSQL, MariaDB and Redis of Debian, with data of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Lab, Running,
    command::{finish, inside, run},
    wait,
};

/// The databases' user and password; both reach a database of the same name.
pub const USER: &str = "app";
pub const PASSWORD: &str = "app";

impl Lab {
    /// All three, started together since each takes seconds to prepare.
    pub fn start_servers(&mut self) -> Result<()> {
        let lab = &*self;
        let [postgres, mariadb, redis] = std::thread::scope(|scope| {
            let starts =
                [scope.spawn(|| postgres(lab)), scope.spawn(|| mariadb(lab)), scope.spawn(|| redis(lab))];
            starts.map(|start| start.join().expect("starting a server does not panic"))
        });
        self.processes.insert("postgres".into(), postgres?);
        self.processes.insert("mariadb".into(), mariadb?);
        self.processes.insert("redis".into(), redis?);
        Ok(())
    }

    /// PostgreSQL alone.
    pub fn start_postgres(&mut self) -> Result<()> {
        let server = postgres(self)?;
        self.processes.insert("postgres".into(), server);
        Ok(())
    }

    fn data(&self, server: &str, owner: &str) -> Result<PathBuf> {
        let dir = self.id.dir.join("data").join(server);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        run("chown", &[owner, &dir.to_string_lossy()])?;
        Ok(dir)
    }

    /// A program on the services' host, as the user that the package made for it.
    fn server(&self, user: &str, program: &Path) -> Command {
        let mut command = inside(&self.id.netns("svc"), &self.id.tools(), "setpriv");
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(program).current_dir("/");
        command
    }
}

/// Debian keeps the programs of each PostgreSQL version in a folder of its own.
pub fn postgres_dir() -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not there; run `cargo xtask setup`")?;
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).max();
    newest.context("no version of PostgreSQL is below /usr/lib/postgresql")
}

fn postgres(lab: &Lab) -> Result<Running> {
    let (programs, data) = (postgres_dir()?, lab.data("postgres", "postgres")?);
    finish(
        lab.server("postgres", &programs.join("initdb"))
            .args([
                "--auth=trust",
                "--no-sync",
                "--encoding=UTF8",
                "--no-locale",
                "--username=postgres",
                "-D",
            ])
            .arg(&data),
    )?;
    let rules = "local all all trust\nhost all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n";
    fs::write(data.join("pg_hba.conf"), rules).context("cannot write pg_hba.conf")?;
    let mut command = lab.server("postgres", &programs.join("postgres"));
    command.arg("-D").arg(&data).arg("-k").arg(&data);
    for setting in ["listen_addresses=*", "fsync=off", "max_wal_size=64MB", "shared_buffers=32MB"] {
        command.args(["-c", setting]);
    }
    let server = Running::start(&mut command, &lab.id.log("postgres"))?;
    let sql = |database: &str, sql: &str| {
        let mut psql = lab.server("postgres", Path::new("psql"));
        psql.arg("-h").arg(&data).args(["-v", "ON_ERROR_STOP=1", "-qAt", "-d", database, "-c", sql]);
        finish(&mut psql)
    };
    wait::for_true("PostgreSQL answers", || sql("postgres", "select 1").is_ok())?;
    sql("postgres", &format!("create user {USER} superuser"))?;
    sql("postgres", &format!("create database {USER} owner {USER}"))?;
    Ok(server)
}

fn mariadb(lab: &Lab) -> Result<Running> {
    let data = lab.data("mariadb", "mysql")?;
    let dir = format!("--datadir={}", data.display());
    // Its temporary tables in a folder that it shares with other servers may have the same names as theirs.
    let temporary = format!("--tmpdir={}", lab.data("mariadb-temporary", "mysql")?.display());
    let small =
        ["--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M"];
    finish(
        lab.server("mysql", Path::new("mariadb-install-db"))
            .args([
                "--no-defaults",
                &dir,
                &temporary,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .args(small),
    )?;
    let init = data.join("init.sql");
    let sql = format!(
        "CREATE DATABASE IF NOT EXISTS {USER};\nCREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n\
         GRANT ALL ON {USER}.* TO {USER}@'%';\n"
    );
    fs::write(&init, sql).context("cannot write the first statements of MariaDB")?;
    let socket = data.join("sock");
    let server = Running::start(
        lab.server("mysql", Path::new("mariadbd"))
            .args(["--no-defaults", &dir, &temporary, "--bind-address=*", "--skip-name-resolve"])
            .args(small)
            .arg(format!("--init-file={}", init.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", data.join("pid").display())),
        &lab.id.log("mariadb"),
    )?;
    wait::for_true("MariaDB answers", || {
        let mut client = lab.server("mysql", Path::new("mariadb"));
        client.args(["--no-defaults", &format!("-u{USER}"), &format!("-p{PASSWORD}"), "-e", "select 1"]);
        finish(client.arg(format!("--socket={}", socket.display()))).is_ok()
    })?;
    Ok(server)
}

fn redis(lab: &Lab) -> Result<Running> {
    let data = lab.data("redis", "redis")?;
    let server = Running::start(
        lab.server("redis", Path::new("redis-server"))
            .args([
                "--bind",
                "0.0.0.0",
                "::",
                "--protected-mode",
                "no",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ])
            .arg(&data),
        &lab.id.log("redis"),
    )?;
    wait::for_true("Redis answers", || {
        let mut client = lab.server("redis", Path::new("redis-cli"));
        finish(client.arg("ping")).is_ok_and(|answer| answer.trim() == "PONG")
    })?;
    Ok(server)
}
