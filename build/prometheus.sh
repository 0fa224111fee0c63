#!/bin/sh
# prometheus.sh DIR: Prometheus' own server of the version in go.mod, and
# Debian's, years older, as DIR/prometheus and DIR/prometheus-debian. Run it in
# the source tree; the first build takes minutes.
set -eu
dir=$(realpath -m "$1")
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
module=github.com/prometheus/prometheus
version=$(go list -m -f '{{.Version}}' $module)
if [ ! -x "$dir/prometheus" ] || [ "$(cat "$dir/version" 2>/dev/null)" != "$version" ]; then
	rm -rf "$dir/src"
	cp -r "$(go list -m -f '{{.Dir}}' $module)" "$dir/src" # its go.mod replaces modules, which `go install` refuses
	chmod -R u+w "$dir/src"
	rm -f "$dir"/src/go.work*
	(cd "$dir/src" && GOWORK=off GOFLAGS='-trimpath -buildvcs=false -mod=mod -tags=remove_all_sd,netgo' go build -o "$dir/prometheus" ./cmd/prometheus)
	rm -rf "$dir/src"
	echo "$version" >"$dir/version"
fi
[ -x "$dir/prometheus-debian" ] && exit 0
command -v apt-get >/dev/null || { echo "no apt-get here: what needs Debian's Prometheus is skipped" >&2; exit 0; }
cd "$dir"
apt-get -qq download prometheus || { echo "package lists are missing or old: apt-get update" >&2; exit 1; }
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x -O ./usr/bin/prometheus >prometheus-debian
chmod +x prometheus-debian
rm -f prometheus_*.deb
