#!/bin/sh
# promtools.sh DIR: Debian's amtool, promtool, prometheus-node-exporter and
# prometheus-blackbox-exporter in DIR, unpacked from their packages and not installed:
# those would start services. It uses this machine's package lists. Several may run at
# a time: one fetches, and what is in DIR is whole.
set -eu
dir=$(realpath -m "$1")
tools="prometheus-alertmanager:amtool prometheus:promtool prometheus-node-exporter:prometheus-node-exporter prometheus-blackbox-exporter:prometheus-blackbox-exporter"
there() { for tool in $tools; do [ -x "$dir/${tool#*:}" ] || return 1; done; }
there && exit 0
other="or put amtool, promtool, prometheus-node-exporter and prometheus-blackbox-exporter into $dir"
command -v apt-get >/dev/null || { echo "apt-get is missing: this needs a Debian or Ubuntu machine, $other" >&2; exit 1; }
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
rm -rf "$dir"/part.* # of one that was killed
for tool in $tools; do
	[ -x "$dir/${tool#*:}" ] && continue # somebody else fetched it meanwhile
	part=$(mktemp -d "$dir/part.XXXXXX")
	trap 'rm -rf "$part"' EXIT
	cd "$part"
	apt-get -qq download "${tool%:*}" || { echo "package lists are missing or old: apt-get update, $other" >&2; exit 1; }
	dpkg-deb --fsys-tarfile "${tool%:*}"_*.deb | tar -x --strip-components=3 "./usr/bin/${tool#*:}"
	mv "${tool#*:}" "$dir" # whole or not at all: who does not take the lock may run it
	cd "$dir"
	rm -rf "$part"
done
