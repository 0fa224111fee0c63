#!/bin/sh
# kubectl.sh DIR: Debian's kubectl as DIR/kubectl, unpacked from its package and
# not installed: machines often have another one. It uses this machine's package
# lists and keeps the download in DIR.
set -eu
dir=$(realpath -m "$1")
[ -x "$dir/kubectl" ] && exit 0
command -v apt-get >/dev/null || { echo "this needs apt-get: a Debian or Ubuntu machine" >&2; exit 1; }
mkdir -p "$dir"
cd "$dir"
apt-get -qq download kubernetes-client || { echo "package lists are missing or old: apt-get update" >&2; exit 1; }
dpkg-deb --fsys-tarfile kubernetes-client_*.deb | tar -x --strip-components=3 ./usr/bin/kubectl
