#!/bin/sh
# static.sh OUT.tar TAG ./cmd/PROGRAM: an image with nothing but one Go program
# of this module, built static, as its entrypoint.
set -eu
out=$(realpath -m "$1")
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
program=$(basename "$3")
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$work/$program" "$3"
mkdir -p "$(dirname "$out")"
go run ./build/mkimage -o "$out" -tag "$2" -static "$work/$program:/$program" -entrypoint "/$program"
