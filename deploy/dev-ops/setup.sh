#!/bin/sh
# Sets up the monitoring server on Debian: Prometheus and Alertmanager from Debian, with the configuration, rules and templates in this
# directory, and optionally Grafana from its own repository. The script is idempotent: run it again after a change or an upgrade.
#
#   sudo ./setup.sh [--scrape HOST:PORT]... [--grafana]
#
#   --scrape HOST:PORT   scrape this agent (metrics_port, 8000); not needed for hosts that use remote write
#   --grafana            add Grafana's repository (apt.grafana.com), install Grafana, and provision data source and dashboards
#
# The first version of each file that this script replaces is kept as NAME.before-citadel.
set -eu

deploy=$(cd "$(dirname "$0")/.." && pwd)
prometheus=/etc/prometheus
grafana=no
targets=

fail() {
    echo "setup.sh: $*" >&2
    exit 1
}

usage() {
    sed -n 's/^# \{0,1\}//; 2,12p' "$0"
}

while [ $# -gt 0 ]; do
    case "$1" in
    --scrape)
        [ $# -gt 1 ] || fail "--scrape requires HOST:PORT"
        case "$2" in
        *[!A-Za-z0-9.:_-]* | *: | :* | '') fail "$2 is not HOST:PORT" ;;
        *:*) targets="$targets $2" ;;
        *) targets="$targets $2:8000" ;;
        esac
        shift
        ;;
    --grafana) grafana=yes ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) fail "unknown option $1; see --help" ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || fail "run this as root"
command -v apt-get >/dev/null || fail "this script supports only Debian and Ubuntu; on other systems, see compose.yml"

export DEBIAN_FRONTEND=noninteractive
changed=

missing() {
    for package in "$@"; do
        [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

packages() {
    # Word splitting is intended: package names have no spaces.
    # shellcheck disable=SC2046
    set -- $(missing "$@")
    [ $# -eq 0 ] && return
    echo "installing $*"
    apt-get --quiet=2 update
    apt-get --quiet=2 install --yes --no-install-recommends "$@"
}

# put TARGET: writes standard input to TARGET if it differs.
put() {
    target=$1
    new=$(mktemp)
    cat >"$new"
    if [ -f "$target" ] && cmp -s "$new" "$target"; then
        rm -f "$new"
        return
    fi
    mkdir -p "$(dirname "$target")"
    if [ -f "$target" ] && [ ! -e "$target.before-citadel" ] && [ ! -e "$(dirname "$target")/.citadel" ]; then
        cp --preserve "$target" "$target.before-citadel"
    fi
    install -m 644 "$new" "$target"
    rm -f "$new"
    changed="$changed $target"
    echo "wrote $target"
}

packages prometheus prometheus-alertmanager

for file in prometheus.yml citadel-agent.rules.yml agent-down.rules.yml citadel-recording.rules.yml native-histograms.rules.yml fleet.rules.yml; do
    put "$prometheus/$file" <"$deploy/prometheus/$file"
done
put "$prometheus/citadel.tmpl" <"$deploy/alertmanager/citadel.tmpl"
# The operator configures receivers in this file, so it is written only once.
if [ ! -e "$prometheus/.citadel" ]; then
    put "$prometheus/alertmanager.yml" <"$deploy/alertmanager/alertmanager.yml"
fi
if [ -n "$targets" ]; then
    {
        echo "# Written by setup.sh --scrape."
        echo "- targets:"
        for target in $targets; do
            echo "    - \"$target\""
        done
    } | put "$prometheus/citadel-agents/hosts.yml"
fi
mkdir -p "$prometheus/citadel-agents"
touch "$prometheus/.citadel"

# Flags depend on the version of Prometheus: native histograms are always enabled from 3.8.
arguments="--web.enable-remote-write-receiver"
if prometheus --help 2>&1 | tr -d '\n' | grep -q 'native-histograms'; then
    arguments="$arguments --enable-feature=native-histograms"
fi
own=$( (. /etc/default/prometheus && echo "${ARGS:-}") 2>/dev/null || true)
echo "ARGS=\"$arguments${own:+ $own}\"" | put "$prometheus/citadel.env"
# Read after /etc/default/prometheus, which is not changed.
put /etc/systemd/system/prometheus.service.d/citadel.conf <<END
[Service]
EnvironmentFile=$prometheus/citadel.env
END

promtool check config "$prometheus/prometheus.yml" >/dev/null || fail "promtool rejects $prometheus/prometheus.yml"
amtool check-config "$prometheus/alertmanager.yml" >/dev/null || fail "amtool rejects $prometheus/alertmanager.yml"

if [ "$grafana" = yes ]; then
    packages ca-certificates curl
    if [ ! -s /usr/share/keyrings/grafana.asc ]; then
        curl --fail --silent --show-error --location --output /usr/share/keyrings/grafana.asc https://apt.grafana.com/gpg.key ||
            fail "cannot download Grafana's key from apt.grafana.com; run again without --grafana to set up the rest"
    fi
    put /etc/apt/sources.list.d/grafana.list <<END
deb [signed-by=/usr/share/keyrings/grafana.asc] https://apt.grafana.com stable main
END
    packages grafana
fi
if [ -d /etc/grafana ]; then
    put /etc/grafana/provisioning/datasources/citadel.yml <"$deploy/grafana/provisioning/datasources/citadel.yml"
    put /etc/grafana/provisioning/dashboards/citadel.yml <"$deploy/grafana/provisioning/dashboards/citadel.yml"
    for file in "$deploy"/grafana/dashboards/*.json; do
        put "/var/lib/grafana/dashboards/citadel/$(basename "$file")" <"$file"
    done
    # Dashboards of earlier versions that others have replaced.
    for old in models storage system; do
        file=/var/lib/grafana/dashboards/citadel/$old.json
        if [ -e "$file" ]; then
            rm "$file"
            changed="$changed $file"
            echo "removed $file"
        fi
    done
fi

if [ -z "$changed" ]; then
    echo "nothing to do: everything is up to date"
elif [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    for service in prometheus prometheus-alertmanager grafana-server; do
        if systemctl cat "$service" >/dev/null 2>&1; then
            systemctl enable --quiet "$service"
            systemctl restart "$service"
        fi
    done
    echo "Prometheus and Alertmanager are running; set remote_write_url of the agents to http://$(hostname):9090/api/v1/write"
fi
if grep -q 'CHANGE' "$prometheus/alertmanager.yml"; then
    echo "set the receivers of alerts in the lines marked CHANGE in $prometheus/alertmanager.yml"
fi
