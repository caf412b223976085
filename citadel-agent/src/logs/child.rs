//! Confines child processes of the agent.

use std::io;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use tokio::process::Command;

/// Starts the child without any capability, even if the agent runs as root, and kills it when the thread that started
/// it exits: otherwise a `journalctl --follow` would wait for the next entry forever after the agent was killed.
///
/// What the child reads must be readable by the agent's user and groups.
pub(super) fn confine(command: &mut Command) {
    let agent = getpid();
    // SAFETY: between fork and exec the closure only makes four system calls; it takes no lock and allocates no memory.
    unsafe { command.pre_exec(move || confine_this_process(agent)) };
}

fn confine_this_process(agent: Pid) -> io::Result<()> {
    // Without it, an execve(2) as root would restore the capabilities (`cap_bprm_creds_from_file` in
    // security/commoncap.c).
    set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    // The ambient set is reduced together with the other two.
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The agent may have exited before that.
    if getppid() == Some(agent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_has_no_capabilities_and_asks_to_end_with_its_parent() {
        let mut command = Command::new("cat");
        command.arg("/proc/self/status").kill_on_drop(true);
        confine(&mut command);
        let status = String::from_utf8(command.output().await.unwrap().stdout).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
    }

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let (send, receive) = std::sync::mpsc::channel();
        let starter = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _guard = runtime.enter();
            let mut command = Command::new("sleep");
            command.arg("300");
            confine(&mut command);
            let mut child = command.spawn().unwrap();
            send.send(child.id().unwrap()).unwrap();
            // As a process that is killed leaves it: nobody ends it.
            std::mem::forget(child.stdin.take());
            std::mem::forget(child);
        });
        let pid = receive.recv().unwrap();
        starter.join().unwrap();
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next().unwrap_or_default())
        };
        let begin = std::time::Instant::now();
        // Ended, or a zombie that nobody has waited for.
        while !matches!(state(), None | Some('Z')) {
            assert!(begin.elapsed() < std::time::Duration::from_secs(10), "it runs on");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
