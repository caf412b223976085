//! Generates the files of a package from the agent's own tables: manual pages, completions for three shells, and the configuration
//! file with every key commented out. Run by `cargo xtask dist`.

mod config_file;
mod manual;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap_complete::{Shell, generate_to};

/// Name of the program and of its completion files.
const PROGRAM: &str = "citadel-agent";

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("usage: citadel-agent-package FOLDER")?;
    write(&folder)
}

/// Writes all files below `folder`, at the paths they have in a package.
fn write(folder: &Path) -> Result<()> {
    let within = |path: &str| -> Result<PathBuf> {
        let path = folder.join(path);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    };
    let etc = within("etc/citadel-agent")?;
    fs::write(etc.join("monitoring-integration.yaml"), config_file::text())?;

    clap_mangen::generate_to(command(), within("usr/share/man/man1")?)?;
    let page = within("usr/share/man/man5")?.join("citadel-agent.yaml.5");
    fs::write(page, manual::configuration())?;

    for (shell, path, name) in [
        (Shell::Bash, "usr/share/bash-completion/completions", PROGRAM),
        (Shell::Zsh, "usr/share/zsh/vendor-completions", "_citadel-agent"),
        (Shell::Fish, "usr/share/fish/vendor_completions.d", "citadel-agent.fish"),
    ] {
        let folder = within(path)?;
        let written = generate_to(shell, &mut command(), PROGRAM, &folder)?;
        fs::rename(written, folder.join(name))?;
    }
    Ok(())
}

/// The agent's command line; its commands have pages of their own, `help` needs none.
fn command() -> clap::Command {
    citadel_agent::cli::command().disable_help_subcommand(true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All of it, in a folder that is gone afterwards.
    fn written() -> (Folder, BTreeSet<String>) {
        let folder = Folder(std::env::temp_dir().join(format!(
            "citadel-package-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        )));
        write(&folder.0).unwrap();
        let mut files = BTreeSet::new();
        let mut left = vec![folder.0.clone()];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                files.insert(path.strip_prefix(&folder.0).unwrap().display().to_string());
            }
        }
        (folder, files)
    }

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_command_has_a_page_and_each_shell_its_completion() {
        let (folder, files) = written();
        let mut pages: BTreeSet<String> = BTreeSet::new();
        let mut left = vec![(PROGRAM.to_owned(), command())];
        while let Some((name, command)) = left.pop() {
            left.extend(command.get_subcommands().map(|sub| (format!("{name}-{}", sub.get_name()), sub.clone())));
            pages.insert(format!("usr/share/man/man1/{name}.1"));
        }
        assert!(pages.len() > 10, "{pages:?}");
        assert!(pages.is_subset(&files), "missing: {:?}", pages.difference(&files));
        for file in [
            "usr/share/bash-completion/completions/citadel-agent",
            "usr/share/zsh/vendor-completions/_citadel-agent",
            "usr/share/fish/vendor_completions.d/citadel-agent.fish",
        ] {
            let text = fs::read_to_string(folder.0.join(file)).unwrap();
            for word in command().get_subcommands().map(clap::Command::get_name) {
                assert!(text.contains(word), "{file} does not know {word}");
            }
        }
    }
}
