#!/bin/sh
# Installs or removes citadel-agent from the archive that this file is in, on a host without a Debian package manager:
#
#   ./install.sh              install, enable and start
#   ./install.sh --no-start   install only
#   ./install.sh --remove     stop and remove; the configuration and the state stay
#   ./install.sh --purge      remove those as well
#
# DESTDIR=/some/root installs into another root, and starts nothing there.
set -eu

root=${DESTDIR:-}
here=$(cd "$(dirname "$0")" && pwd)
config=/etc/citadel-agent/monitoring-integration.yaml
unit=citadel-agent.service

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

# systemd runs here and belongs to the root that is worked on.
systemd() {
    [ -z "$root" ] && [ -d /run/systemd/system ]
}

as_root() {
    [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || fail "run this as root"
}

# Every file of the archive, but for this one and the configuration, which belongs to whoever changes it.
files() {
    (cd "$here/root" && find . -type f ! -path ".$config" | sed 's/^\.//')
}

install_all() {
    as_root
    [ -x "$here/root/usr/bin/citadel-agent" ] || fail "there is no program beside this script: unpack the whole archive"
    "$here/root/usr/bin/citadel-agent" version >/dev/null 2>&1 ||
        fail "the program does not run here: it needs a 64-bit Linux of its architecture with glibc GLIBC_NEEDED or later"
    files | while read -r file; do
        mode=644
        [ -x "$here/root$file" ] && mode=755
        install -D -m "$mode" "$here/root$file" "$root$file"
    done
    if [ -e "$root$config" ]; then
        install -D -m 644 "$here/root$config" "$root$config.new"
        echo "kept $config; the one of this release is $config.new"
    else
        install -D -m 644 "$here/root$config" "$root$config"
    fi
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers ${root:+--root="$root"} /usr/lib/sysusers.d/citadel-agent.conf 2>/dev/null ||
            echo "no user citadel-agent could be made: the unit makes one while it runs"
    fi
    if [ "${1:-}" = --no-start ] || ! systemd; then
        echo "installed; start it: systemctl enable --now citadel-agent"
        return
    fi
    systemctl daemon-reload
    systemctl enable "$unit"
    systemctl restart "$unit"
    echo "installed and started; see: systemctl status citadel-agent, citadel-agent check"
}

remove_all() {
    as_root
    if systemd; then
        systemctl disable --now "$unit" 2>/dev/null || true
    fi
    files | while read -r file; do
        rm -f "$root$file"
    done
    rmdir "$root/usr/share/doc/citadel-agent" "$root/usr/share/citadel-agent" 2>/dev/null || true
    if [ "${1:-}" = --purge ]; then
        rm -f "$root$config" "$root$config.new"
        rmdir "$root/etc/citadel-agent" 2>/dev/null || true
        rm -rf "$root/var/lib/private/citadel-agent" "$root/var/lib/citadel-agent"
        if [ -z "$root" ] && getent passwd citadel-agent >/dev/null; then
            userdel citadel-agent || true
        fi
    fi
    if systemd; then
        systemctl daemon-reload
    fi
    echo "removed"
}

case "${1:-}" in
"" | --no-start) install_all "$@" ;;
--remove | --purge) remove_all "$@" ;;
*) fail "unknown option $1: --no-start, --remove or --purge" ;;
esac
