#!/bin/sh
# redis.sh OUT.tar [TAG]: an image of Debian's redis with redis-cli; it keeps its
# data in /data and listens on port 6379.
set -eu
EXTRA='
mkdir -p data && chmod 777 data
for c in sh cat ls sleep ps id kill grep nc; do [ -e usr/bin/$c ] || ln -s busybox usr/bin/$c; done
' PORT=6379/tcp exec "$(dirname "$0")/debian.sh" "$1" "${2:-docker.io/library/redis:latest}" \
	"redis-server redis-tools busybox-static" "redis-server" "--bind 0.0.0.0 --protected-mode no --dir /data"
