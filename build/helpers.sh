#!/bin/sh
# helpers.sh [OUT]: builds the helper programs that ride inside perch into
# agent/runtime/bundle/bin (or OUT): perch-shim, runc, pause.tar. What is newer
# than its inputs is left alone. Needs Go and gcc; libseccomp-dev makes runc able
# to filter system calls (without it perch uses a system runc that is).
set -eu
cd "$(dirname "$0")/.."
out=${1:-agent/runtime/bundle/bin}
mkdir -p "$out"
# The shim speaks ttrpc only; without gRPC it is 6 MB smaller.
tags=no_btrfs,no_zfs,no_devmapper,no_grpc

# stale FILE INPUT…: FILE is missing, or older than an input.
stale() {
	target=$1
	shift
	[ ! -e "$target" ] || [ -n "$(find "$@" -newer "$target" -type f -not -name '*_test.go' -print -quit)" ]
}

# module PATH: a line that changes when the module's version does.
module() { go list -m -f '{{.Path}} {{.Version}} {{with .Replace}}{{.Path}} {{.Version}}{{end}}' "$1"; }

# changed STAMP TEXT: the text differs from what was built last.
changed() { [ "$(cat "$1" 2>/dev/null || true)" != "$2" ]; }

want="$(go version) $(module github.com/containerd/containerd/v2) $(module github.com/vishvananda/netlink) $tags"
if stale "$out/perch-shim" cmd/perch-shim agent/network/cni || changed "$out/.shim" "$want"; then
	echo "building perch-shim"
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -tags "$tags" -o "$out/perch-shim.new" ./cmd/perch-shim
	mv "$out/perch-shim.new" "$out/perch-shim"
	echo "$want" >"$out/.shim"
fi

seccomp=
link=
if pkg-config --exists libseccomp 2>/dev/null; then
	seccomp=seccomp
	link="$(pkg-config --static --libs libseccomp)"
else
	echo "note: libseccomp-dev is not installed; the runc inside perch will not filter system calls" >&2
fi
want="$(go version) $(module github.com/opencontainers/runc) $seccomp"
if [ ! -e "$out/runc" ] || changed "$out/.runc" "$want"; then
	echo "building runc${seccomp:+ with seccomp}"
	version=$(go list -m -f '{{.Version}}' github.com/opencontainers/runc)
	CGO_ENABLED=1 CGO_LDFLAGS="$link" go build -trimpath -tags "$seccomp,osusergo,netgo,urfave_cli_no_docs" \
		-ldflags "-s -w -linkmode external -extldflags -static -X main.version=${version#v}" \
		-o "$out/runc.new" github.com/opencontainers/runc
	mv "$out/runc.new" "$out/runc"
	echo "$want" >"$out/.runc"
fi

if stale "$out/pause.tar" build/pause.c build/mkimage; then
	echo "building pause"
	gcc -Os -static -Wall -Wextra -o "$out/pause.new" build/pause.c
	strip "$out/pause.new"
	go run ./build/mkimage -o "$out/pause.tar" -tag perch.internal/pause:built -static "$out/pause.new:/pause" -entrypoint /pause
	rm -f "$out/pause.new"
fi
