//! Processes that a test starts.

use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

/// A process that is killed with this value, so that a test that fails leaves none behind.
pub struct Running(pub Child);

impl Running {
    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing is left to do about one that has ended.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
