#!/bin/sh
# promtools.sh DIR: Debian's amtool, promtool and prometheus-node-exporter in DIR,
# unpacked from their packages and not installed: those would start services. It
# uses this machine's package lists and keeps the downloads in DIR.
set -eu
dir=$(realpath -m "$1")
[ -x "$dir/amtool" ] && [ -x "$dir/promtool" ] && [ -x "$dir/prometheus-node-exporter" ] && exit 0
command -v apt-get >/dev/null || { echo "this needs apt-get: a Debian or Ubuntu machine" >&2; exit 1; }
mkdir -p "$dir"
cd "$dir"
exec 9>lock
flock 9
for tool in prometheus-alertmanager:amtool prometheus:promtool prometheus-node-exporter:prometheus-node-exporter; do
	[ -x "${tool#*:}" ] && continue # somebody else fetched it meanwhile
	apt-get -qq download "${tool%:*}" || { echo "package lists are missing or old: apt-get update" >&2; exit 1; }
	rm -rf unpacked && mkdir unpacked
	dpkg-deb --fsys-tarfile "${tool%:*}"_*.deb | tar -x -C unpacked --strip-components=3 "./usr/bin/${tool#*:}"
	mv "unpacked/${tool#*:}" . # whole or not at all: who does not take the lock may run it
done
