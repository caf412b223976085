//! nginx, the server under load.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{OTHER_PORT, Stage};
use crate::group::{self, Group};
use crate::{process, scrape};

/// Serves nginx's own counters (`stub_status`).
const STATUS_PORT: u16 = 18081;

/// Size of the served file in bytes: that of a short model response.
const FILE_SIZE: usize = 600;

/// How nginx and the load generator share the machine. When the scheduler places them freely, throughput varies by a
/// third between runs.
pub(super) const PLACES: &str = "one process on a CPU each";

/// A running nginx; stopped on drop.
pub(super) struct Nginx {
    group: Group,
}

impl Nginx {
    /// Starts nginx on these model ports and on `OTHER_PORT`.
    pub(super) fn start(stage: &Stage, models: impl IntoIterator<Item = u16>) -> Result<Self> {
        let folder = &stage.folder;
        let config = folder.join("nginx.conf");
        let shown = folder.display();
        let mut listen = format!("listen 127.0.0.1:{OTHER_PORT};");
        for port in models {
            write!(listen, " listen 127.0.0.1:{port};")?;
        }
        let text = format!(
            "daemon off; user root; worker_processes 1; worker_cpu_affinity 1; pid {shown}/nginx.pid; error_log stderr;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n\
             access_log off; default_type application/json; keepalive_requests 1000000000; keepalive_timeout 1h;\n\
             client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy; fastcgi_temp_path {shown}/fastcgi;\n\
             uwsgi_temp_path {shown}/uwsgi; scgi_temp_path {shown}/scgi;\n\
             server {{ {listen} root {shown}/www; open_file_cache max=10; }}\n\
             server {{ listen 127.0.0.1:{STATUS_PORT}; location / {{ stub_status; }} }}\n\
             }}\n"
        );
        fs::create_dir_all(folder.join("www/v1")).context("cannot create the served folder")?;
        fs::write(folder.join("www/v1/models"), "x".repeat(FILE_SIZE)).context("cannot write the served file")?;
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let nginx = process::find("nginx").context("no nginx: `cargo xtask setup bench`")?;
        let mut command = std::process::Command::new(nginx);
        command.arg("-c").arg(&config).arg("-e").arg("stderr");
        let mut group = Group::spawn("nginx", &mut command, group::log(folder, "nginx"), false)?;
        group.wait_until(Duration::from_secs(10), || TcpStream::connect((Ipv4Addr::LOCALHOST, STATUS_PORT)).is_ok())?;
        // Another server on these ports would have answered too.
        std::thread::sleep(Duration::from_millis(100));
        group.check()?;
        Ok(Self { group })
    }

    /// PID of the master process.
    pub(super) fn pid(&self) -> u32 {
        self.group.child.id()
    }

    /// PIDs of the worker processes.
    pub(super) fn workers(&self) -> Result<Vec<u32>> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let workers = text.split_whitespace().map(|pid| pid.parse().with_context(|| format!("{path}: {text:?}")));
        let workers: Vec<u32> = workers.collect::<Result<_>>()?;
        ensure!(!workers.is_empty(), "{path} is empty: nginx has no worker process");
        Ok(workers)
    }

    /// Requests handled so far, this query included.
    pub(super) fn requests(&self) -> Result<u64> {
        let text = scrape::get(STATUS_PORT, "/")?;
        parse_requests(&text).with_context(|| format!("nginx's status is {text:?}"))
    }
}

/// The third number on the third line of `stub_status`.
fn parse_requests(status: &str) -> Option<u64> {
    status.lines().nth(2)?.split_whitespace().nth(2)?.parse().ok()
}

/// URL of the file on `port`.
pub(super) fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}{PATH}")
}

/// Path of the file.
pub(super) const PATH: &str = "/v1/models";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_third_number() {
        let status = "Active connections: 2 \nserver accepts handled requests\n 9 9 12 \nReading: 0 Writing: 1\n";
        assert_eq!(parse_requests(status), Some(12));
        assert_eq!(parse_requests("no"), None);
    }
}
