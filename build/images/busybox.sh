#!/bin/sh
# busybox.sh OUT.tar [TAG]: an image of this machine's static busybox.
set -eu
cd "$(dirname "$0")/../.."
busybox=$(command -v busybox) || { echo "busybox is missing: apt-get install busybox-static" >&2; exit 1; }
exec go run ./build/mkimage -o "$1" -tag "${2:-docker.io/library/busybox:latest}" -busybox "$busybox" -cmd sh
