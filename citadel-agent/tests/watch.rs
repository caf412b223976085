//! Reload triggers, on a real directory and with real signals.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use citadel_agent::config::watch::{Trigger, Watch};
use tokio::time::timeout;

const PERIOD: Duration = Duration::from_millis(20);
/// Longer than any reload takes to be seen, also on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// Some looks: enough to see what would be seen.
const QUIET: Duration = Duration::from_millis(200);

/// One test at a time: a signal reaches every watch of the process.
fn block_on(test: impl Future<Output = ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

async fn next(watch: &mut Watch) -> Trigger {
    timeout(SOON, watch.next_reload()).await.expect("a reload")
}

async fn is_quiet(watch: &mut Watch) {
    let trigger = timeout(QUIET, watch.next_reload()).await;
    assert!(trigger.is_err(), "unexpected: {trigger:?}");
}

fn watch(path: &Path) -> Watch {
    Watch::with_period(Some(path), PERIOD).unwrap()
}

#[test]
fn each_change_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    fs::write(&path, "ebpf: {}").unwrap();
    block_on(async {
        let mut watch = watch(&path);
        is_quiet(&mut watch).await;

        fs::write(&path, "ebpf: { net: false }").unwrap();
        assert_eq!(next(&mut watch).await, Trigger::FileChanged);
        is_quiet(&mut watch).await;

        // As an editor does it, and with the same size and modification time.
        let other = dir.path().join("other");
        fs::write(&other, "ebpf: { net: FALSE }").unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(next(&mut watch).await, Trigger::FileChanged);
        is_quiet(&mut watch).await;
    });
}

#[test]
fn a_config_map_swap_is_seen_through_its_symlinks() {
    let dir = tempfile::tempdir().unwrap();
    for (version, text) in [("v1", "ebpf: {}"), ("v2", "ebpf: {}")] {
        fs::create_dir(dir.path().join(version)).unwrap();
        fs::write(dir.path().join(version).join("config.yaml"), text).unwrap();
    }
    symlink("v1", dir.path().join("data")).unwrap();
    symlink("data/config.yaml", dir.path().join("config.yaml")).unwrap();
    block_on(async {
        let mut watch = watch(&dir.path().join("config.yaml"));
        symlink("v2", dir.path().join("data_tmp")).unwrap();
        fs::rename(dir.path().join("data_tmp"), dir.path().join("data")).unwrap();
        assert_eq!(next(&mut watch).await, Trigger::FileChanged);
        is_quiet(&mut watch).await;
    });
}

#[test]
fn a_file_that_goes_away_is_reported_and_so_is_its_return() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    fs::write(&path, "").unwrap();
    block_on(async {
        let mut watch = watch(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(next(&mut watch).await, Trigger::FileChanged);
        is_quiet(&mut watch).await;
        fs::write(&path, "").unwrap();
        assert_eq!(next(&mut watch).await, Trigger::FileChanged);
    });
}

#[test]
fn a_signal_reloads_and_takes_the_change_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    fs::write(&path, "").unwrap();
    block_on(async {
        let mut watch = watch(&path);
        fs::write(&path, "ebpf: {}").unwrap();
        // SAFETY: raise has no preconditions; `Watch` has taken SIGHUP over.
        assert_eq!(unsafe { libc::raise(libc::SIGHUP) }, 0);
        assert_eq!(next(&mut watch).await, Trigger::Signal);
        is_quiet(&mut watch).await;
    });
}

#[test]
fn without_a_file_only_signals_count() {
    block_on(async {
        let mut watch = Watch::with_period(None, PERIOD).unwrap();
        is_quiet(&mut watch).await;
        // SAFETY: raise has no preconditions; `Watch` has taken SIGHUP over.
        assert_eq!(unsafe { libc::raise(libc::SIGHUP) }, 0);
        assert_eq!(next(&mut watch).await, Trigger::Signal);
    });
}
