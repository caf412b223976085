//! Size and age of configured directories: models, backups.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::metrics::catalogue::storage::{DIRECTORY_COMPLETE, DIRECTORY_FILES, DIRECTORY_NEWEST, DIRECTORY_SIZE};
use crate::metrics::family::{Page, Value};
use crate::sources::{Outcome, Reading};

/// Limits of a walk; a model store has thousands of files, not millions.
const LIMITS: WalkLimits = WalkLimits { entries: 500_000, depth: 64, time: Duration::from_secs(20) };

/// The unit of `st_blocks`, regardless of the file system's block size (`stat(2)`).
const BLOCK: u64 = 512;

pub(in crate::sources) fn read(paths: &[PathBuf], page: &mut Page) -> Reading {
    if paths.is_empty() {
        return Ok(Outcome::Absent);
    }
    let mut errors = Vec::new();
    for path in paths {
        match walk(path, LIMITS) {
            Ok(tree) => add(page, &path.to_string_lossy(), &tree),
            Err(error) => errors.push(format!("{}: {error}", path.display())),
        }
    }
    if errors.is_empty() {
        return Ok(Outcome::Read);
    }
    // Results of the other directories are still useful.
    Ok(Outcome::Partly(errors.join("; ").into()))
}

#[derive(Clone, Copy, Debug)]
struct WalkLimits {
    entries: usize,
    depth: usize,
    time: Duration,
}

/// Result of a walk.
#[derive(Default, Debug)]
struct Tree {
    bytes: u64,
    files: u64,
    newest: Option<f64>,
    incomplete: bool,
}

/// Sums up a directory's files like `du -x`: their disk space, hard links once, without symbolic links (except the
/// directory itself) and other file systems.
fn walk(root: &Path, limits: WalkLimits) -> io::Result<Tree> {
    let deadline = Instant::now() + limits.time;
    let top = fs::metadata(root)?;
    if !top.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    let (mut tree, mut seen, mut left) = (Tree::default(), HashSet::new(), limits.entries);
    // Directories being read, each within the previous one. Only a few are open at a time, because anyone with write
    // access determines how many there are.
    let mut open = vec![fs::read_dir(root)?];
    while let Some(entries) = open.last_mut() {
        let Some(entry) = entries.next() else {
            open.pop();
            continue;
        };
        if left == 0 || Instant::now() >= deadline {
            tree.incomplete = true;
            return Ok(tree);
        }
        left -= 1;
        let Ok((entry, found)) = entry.and_then(|entry| entry.metadata().map(|found| (entry, found))) else {
            continue;
        };
        if found.is_dir() {
            if found.dev() != top.dev() {
                continue;
            }
            if open.len() > limits.depth {
                tree.incomplete = true;
                continue;
            }
            match fs::read_dir(entry.path()) {
                Ok(entries) => open.push(entries),
                // Files removed meanwhile do not matter; those that cannot be read do.
                Err(error) => tree.incomplete |= error.kind() != ErrorKind::NotFound,
            }
        } else if found.is_file() && (found.nlink() == 1 || seen.insert((found.dev(), found.ino()))) {
            tree.add(&found);
        }
    }
    Ok(tree)
}

impl Tree {
    fn add(&mut self, file: &Metadata) {
        self.bytes = self.bytes.saturating_add(file.blocks().saturating_mul(BLOCK));
        self.files += 1;
        let changed = file.mtime() as f64 + file.mtime_nsec() as f64 * 1e-9;
        self.newest = Some(self.newest.map_or(changed, |newest| newest.max(changed)));
    }
}

fn add(page: &mut Page, path: &str, tree: &Tree) {
    page.add(&DIRECTORY_SIZE, [path], Value::Integer(tree.bytes));
    page.add(&DIRECTORY_FILES, [path], Value::Integer(tree.files));
    page.add(&DIRECTORY_COMPLETE, [path], Value::Integer(u64::from(!tree.incomplete)));
    if let Some(newest) = tree.newest {
        page.add(&DIRECTORY_NEWEST, [path], Value::Float(newest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::time::SystemTime;

    /// A tree with a hard link, links in a circle, and a file whose time is known.
    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/model.gguf"), vec![1; 300_000]).unwrap();
        fs::hard_link(path.join("a/model.gguf"), path.join("a/b/same.gguf")).unwrap();
        fs::write(path.join("a/b/small"), "x").unwrap();
        symlink("..", path.join("a/b/up")).unwrap();
        symlink("/etc/passwd", path.join("link")).unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_millis(1_600_000_000_500);
        for file in ["a/model.gguf", "a/b/small"] {
            File::options().append(true).open(path.join(file)).unwrap().set_modified(old).unwrap();
        }
        folder
    }

    #[test]
    fn the_sum_is_that_of_du() {
        let folder = tree();
        let found = walk(folder.path(), LIMITS).unwrap();
        assert_eq!((found.files, found.newest, found.incomplete), (2, Some(1_600_000_000.5), false));
        // du counts directories as well; on its own they take what an empty tree of the same shape takes.
        let du = |args: &[&str]| {
            let output = Command::new("du").args(args).arg(folder.path()).output().unwrap();
            String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let directories: u64 =
            ["", "a", "a/b"].iter().map(|name| fs::metadata(folder.path().join(name)).unwrap().blocks()).sum();
        let links: u64 = ["a/b/up", "link"]
            .iter()
            .map(|name| fs::symlink_metadata(folder.path().join(name)).unwrap().blocks())
            .sum();
        assert_eq!(found.bytes + (directories + links) * BLOCK, du(&["-s", "-x", "--block-size=1"]));
    }

    #[test]
    fn a_walk_ends_at_each_of_its_limits_and_says_so() {
        let folder = tree();
        for limits in [
            WalkLimits { entries: 3, ..LIMITS },
            WalkLimits { depth: 1, ..LIMITS },
            WalkLimits { time: Duration::ZERO, ..LIMITS },
        ] {
            assert!(walk(folder.path(), limits).unwrap().incomplete, "{limits:?}");
        }
        assert!(walk(&folder.path().join("absent"), LIMITS).is_err());
        assert!(walk(&folder.path().join("a/model.gguf"), LIMITS).is_err());
    }
}
