#!/usr/bin/env bash
# deps.sh build|test|vm: install what this machine lacks. On Debian and its
# relatives by apt; elsewhere it says what to install.
set -euo pipefail

build=(gcc make git pkg-config libseccomp-dev)
test=(nftables iproute2 chromium chromium-driver kubernetes-client busybox-static curl jq xz-utils)
vm=(qemu-system-x86 busybox-static nftables e2fsprogs)

lacks() { # package: is it missing?
	case $1 in
	libseccomp-dev) ! pkg-config --exists libseccomp 2>/dev/null ;;
	kubernetes-client) ! command -v kubectl >/dev/null ;;
	busybox-static) ! [ -x /bin/busybox ] && ! command -v busybox >/dev/null ;;
	nftables) ! PATH=$PATH:/usr/sbin command -v nft >/dev/null ;;
	iproute2) ! PATH=$PATH:/usr/sbin command -v ip >/dev/null ;;
	qemu-system-x86) ! command -v qemu-system-x86_64 >/dev/null ;;
	e2fsprogs) ! PATH=$PATH:/usr/sbin command -v mke2fs >/dev/null ;;
	xz-utils) ! command -v xz >/dev/null ;;
	chromium-driver) ! command -v chromedriver >/dev/null ;;
	*) ! command -v "$1" >/dev/null ;;
	esac
}

want=("${build[@]}")
[ "${1:-build}" = test ] && want+=("${test[@]}")
[ "${1:-build}" = vm ] && want+=("${vm[@]}")
missing=()
for p in "${want[@]}"; do lacks "$p" && missing+=("$p"); done
[ ${#missing[@]} = 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
	echo "missing on this machine: ${missing[*]} (names of Debian's packages): install them with your package manager" >&2
	exit 1
fi
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
echo "installing ${missing[*]}"
log=$(mktemp)
if ! { $sudo apt-get -q update && $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"; } >"$log" 2>&1; then
	tail -20 "$log" >&2
	exit 1
fi
rm -f "$log"
