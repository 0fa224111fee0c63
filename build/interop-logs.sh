#!/usr/bin/env bash
# interop-logs.sh: install the log clients that perch did not write below
# out/interop, for the tests in logs/ingest/interop. Nothing is installed on the
# machine itself: rsyslog and syslog-ng cannot live beside each other there.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$PWD/out/interop
mkdir -p "$dir/debs/partial" "$dir/root"

if [ ! -d "$dir/node_modules/pino-loki" ]; then
	command -v npm >/dev/null || { echo "npm is missing: install Node.js" >&2; exit 1; }
	npm install --prefix "$dir" --ignore-scripts --no-audit --no-fund --no-save \
		@fluent-org/logger@^1 pino@^10 pino-loki@^3 @elastic/elasticsearch@^9 @opentelemetry/api-logs@^0.223 \
		@opentelemetry/sdk-logs@^0.223 @opentelemetry/exporter-logs-otlp-http@^0.223 @opentelemetry/exporter-logs-otlp-proto@^0.223
fi
if [ ! -x "$dir/root/usr/sbin/syslog-ng" ]; then
	command -v apt-get >/dev/null || { echo "no apt-get here: tests of rsyslog, syslog-ng and python3-fluent-logger use what is installed, or skip" >&2; exit 0; }
	sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
	for set in "rsyslog rsyslog-elasticsearch python3-fluent-logger" "syslog-ng-core syslog-ng-mod-http"; do
		# shellcheck disable=SC2086 # a list
		$sudo apt-get -q -y --no-install-recommends install --download-only -o Dir::Cache::archives="$dir/debs" $set
	done
	for deb in "$dir"/debs/*.deb; do dpkg -x "$deb" "$dir/root"; done
fi
