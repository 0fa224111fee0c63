#!/bin/sh
# promtools.sh DIR: Debian's amtool and promtool in DIR, unpacked from their
# packages and not installed: those would start services. It uses this machine's
# package lists and keeps the downloads in DIR.
set -eu
dir=$(realpath -m "$1")
[ -x "$dir/amtool" ] && [ -x "$dir/promtool" ] && exit 0
command -v apt-get >/dev/null || { echo "this needs apt-get: a Debian or Ubuntu machine" >&2; exit 1; }
mkdir -p "$dir"
cd "$dir"
exec 9>lock
flock 9
apt-get -qq download prometheus-alertmanager prometheus || { echo "package lists are missing or old: apt-get update" >&2; exit 1; }
for tool in prometheus-alertmanager:amtool prometheus:promtool; do
	dpkg-deb --fsys-tarfile "${tool%:*}"_*.deb | tar -x --strip-components=3 "./usr/bin/${tool#*:}"
done
