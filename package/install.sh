#!/bin/sh
# Installs or removes citadel-agent from the archive that contains this script, on hosts without apt:
#
#   ./install.sh              install, enable and start
#   ./install.sh --no-start   install only
#   ./install.sh --remove     stop and uninstall; keep the configuration and the state
#   ./install.sh --purge      uninstall, and remove those as well
#
# DESTDIR=/some/root installs into another root directory and starts nothing.
set -eu

root=${DESTDIR:-}
here=$(cd "$(dirname "$0")" && pwd)
config=/etc/citadel-agent/monitoring-integration.yaml
unit=citadel-agent.service
# The folders that an installation has created: only they are removed again.
created=/usr/share/citadel-agent/created-folders

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

# True if systemd is running and manages the root directory that is installed into.
systemd() {
    [ -z "$root" ] && [ -d /run/systemd/system ]
}

as_root() {
    [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || fail "run this as root"
}

# All files of the archive except the configuration, which the user may have changed.
files() {
    (cd "$here/root" && find . -type f ! -path ".$config" | sed 's/^\.//')
}

# The folders of the archive that do not exist.
missing_folders() {
    (cd "$here/root" && find . -mindepth 1 -type d | sed 's/^\.//' | sort) | while read -r folder; do
        [ -d "$root$folder" ] || echo "$folder"
    done
}

install_all() {
    as_root
    [ -x "$here/root/usr/bin/citadel-agent" ] || fail "cannot find the program next to this script; unpack the whole archive"
    "$here/root/usr/bin/citadel-agent" version >/dev/null 2>&1 ||
        fail "the program does not run on this host; it requires 64-bit Linux on its architecture with glibc GLIBC_NEEDED or later"
    folders=$(missing_folders)
    files | while read -r file; do
        mode=644
        [ -x "$here/root$file" ] && mode=755
        install -D -m "$mode" "$here/root$file" "$root$file"
    done
    [ -z "$folders" ] || echo "$folders" >>"$root$created"
    if [ -e "$root$config" ]; then
        install -D -m 644 "$here/root$config" "$root$config.new"
        echo "kept $config; the default of this release is $config.new"
    else
        install -D -m 644 "$here/root$config" "$root$config"
    fi
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers ${root:+--root="$root"} /usr/lib/sysusers.d/citadel-agent.conf 2>/dev/null ||
            echo "cannot create the user citadel-agent; the unit uses a dynamic user instead"
    fi
    if [ "${1:-}" = --no-start ] || ! systemd; then
        echo "installed; to start it, run: systemctl enable --now citadel-agent"
        return
    fi
    systemctl daemon-reload
    systemctl enable "$unit"
    systemctl restart "$unit"
    echo "installed and started; to check it, run: systemctl status citadel-agent; citadel-agent check"
}

remove_all() {
    as_root
    if systemd; then
        systemctl disable --now "$unit" 2>/dev/null || true
    fi
    files | while read -r file; do
        rm -f "$root$file"
    done
    if [ "${1:-}" = --purge ]; then
        rm -f "$root$config" "$root$config.new"
        rmdir "$root/etc/citadel-agent" 2>/dev/null || true
        rm -rf "$root/var/lib/private/citadel-agent" "$root/var/lib/citadel-agent"
        if [ -z "$root" ] && getent passwd citadel-agent >/dev/null; then
            userdel citadel-agent || true
        fi
    fi
    if [ -f "$root$created" ]; then
        folders=$(sort -ur "$root$created")
        rm -f "$root$created"
        echo "$folders" | while read -r folder; do
            rmdir "$root$folder" 2>/dev/null || true
        done
    fi
    if systemd; then
        systemctl daemon-reload
    fi
    echo "removed"
}

case "${1:-}" in
"" | --no-start) install_all "$@" ;;
--remove | --purge) remove_all "$@" ;;
*) fail "unknown option $1; use --no-start, --remove or --purge" ;;
esac
