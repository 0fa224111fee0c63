#!/bin/bash
# debian.sh OUT.tar TAG "PACKAGES" "ENTRYPOINT" ["CMD"]: an image from Debian
# packages and what they need, without a registry, chroot or daemon. It uses this
# machine's package lists and keeps downloads in $PERCH_CACHE (default
# out/debs). $EXTRA is a shell fragment run inside the new root folder, $USER_
# and $PORT go into the image's configuration.
set -euo pipefail
out=$(realpath -m "$1") tag=$2 packages=$3 entrypoint=$4 cmd=${5:-}
cd "$(dirname "$0")/../.."
cache=$(realpath -m "${PERCH_CACHE:-out/debs}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v apt-get >/dev/null || { echo "this needs apt-get: a Debian or Ubuntu machine" >&2; exit 1; }
mkdir -p "$cache/partial" "$work/root" "$(dirname "$out")"
: >"$work/status"
apt=(apt-get -qq -y --no-install-recommends -o "Dir::State::status=$work/status" -o "Dir::Cache::archives=$cache" -o Debug::NoLocking=1)
# An empty status makes apt name everything that the packages need.
# shellcheck disable=SC2086 # a list of words
"${apt[@]}" -s install $packages >"$work/plan" 2>"$work/err" || {
	cat "$work/err" >&2
	echo "package lists are missing or old: apt-get update" >&2
	exit 1
}
# The plan names versions; what the cache holds is not fetched again.
# shellcheck disable=SC2086
"${apt[@]}" -d install $packages >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
mkdir -p "$work/root/usr/"{bin,sbin,lib,lib64}
for l in bin sbin lib lib64; do ln -s "usr/$l" "$work/root/$l"; done
awk '/^Inst/{print $2}' "$work/plan" | sort -u | while read -r p; do
	case $p in perl* | libperl* | usrmerge | dpkg | debconf | adduser | passwd | libfile-find-rule-perl | libtext-glob-perl | libnumber-compare-perl) continue ;; esac
	# The newest of the versions in the cache.
	deb=$(printf '%s\n' "$cache/${p%%:*}"_*.deb | sort -V | tail -1)
	dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$work/root" \
		--exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
		--exclude='./usr/share/info/*' --exclude='./usr/share/lintian/*'
done
mkdir -p "$work/root/"{proc,sys,dev,tmp,run,root,etc,var}
chmod 1777 "$work/root/tmp"
rm -rf "$work/root/var/run"
ln -s /run "$work/root/var/run"
cat >"$work/root/etc/passwd" <<'USERS'
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33::/var/www:/bin/false
redis:x:999:999::/var/lib/redis:/bin/false
nobody:x:65534:65534::/:/bin/false
USERS
printf 'root:x:0:\nadm:x:4:\nwww-data:x:33:\nredis:x:999:\nnogroup:x:65534:\n' >"$work/root/etc/group"
printf 'hosts: files dns\n' >"$work/root/etc/nsswitch.conf"
if [ -n "${EXTRA:-}" ]; then (cd "$work/root" && eval "$EXTRA"); fi
go run ./build/mkimage -o "$out" -tag "$tag" -rootfs "$work/root" -entrypoint "$entrypoint" -cmd "$cmd" -user "${USER_:-}" -port "${PORT:-}"
echo "$tag: $(wc -c <"$out" | awk '{printf "%.1f MB", $1/1e6}')"
