#!/bin/sh
# all.sh DIR: the images that tests and the demo use, as DIR/NAME.tar. What is
# there and newer than its script is left alone.
set -eu
dir=$(realpath -m "$1")
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir"
for n in busybox nginx redis; do
	if [ ! -e "$dir/$n.tar" ] || [ -n "$(find "$here/$n.sh" "$here/debian.sh" "$here/../mkimage/main.go" -newer "$dir/$n.tar")" ]; then
		echo "making image $n"
		"$here/$n.sh" "$dir/$n.tar"
	fi
done
# The demo application's image follows its source; go build knows when.
"$here/static.sh" "$dir/perch-demo.tar" docker.io/library/perch-demo:1 ./cmd/perch-demo
