#!/bin/bash
# vm-test.sh: perch on a kernel with nothing but cgroup version 2. It boots
# Debian's kernel in an emulated machine (qemu without KVM, so that it runs where
# there is none), with perch, its tests of cgroups and an application inside;
# vm-guest.sh is what happens there. Needs root and bin/perch (or PERCH).
# $VM_ONLY names the parts of the guest to run, with commas; $VM_LIMIT seconds are all it gets.
set -euo pipefail
cd "$(dirname "$0")/.."
perch=${PERCH:-$PWD/bin/perch} limit=${VM_LIMIT:-900}
[ "$(id -u)" = 0 ] || { echo "run as root" >&2; exit 2; }
cache=$PWD/out/vm
mkdir -p "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
began=$SECONDS
step() { printf '%4ds %s\n' $((SECONDS - began)) "$*"; }

# The kernel, as Debian signs it, once for each of its versions.
command -v apt-get >/dev/null || { echo "this needs apt-get: a Debian machine" >&2; exit 1; }
kernel() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/{print $2}'; }
package=$(kernel)
[ -n "$package" ] || { apt-get -qq update && package=$(kernel); }
[ -n "$package" ] || { echo "package linux-image-cloud-amd64 is not to be had here" >&2; exit 1; }
version=${package#linux-image-}
if [ ! -e "$cache/$package/boot/vmlinuz-$version" ]; then
	step "fetching $package"
	rm -rf "$cache"/linux-image-*
	(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package")
	dpkg-deb -x "$work/$package"_*.deb "$cache/$package.new"
	busybox depmod -b "$cache/$package.new" "$version"
	mv "$cache/$package.new" "$cache/$package"
fi
modules=$cache/$package/lib/modules/$version

# The disk: busybox, perch, what perch is tested with, and the modules of file
# systems and networks.
root=$work/root
mkdir -p "$root"/{bin,sbin,lib,lib64,proc,sys,dev,run,tmp,etc,var/lib,images,tests,build/images}
cp "$(command -v busybox)" "$root/bin/busybox"
busybox --list | grep -vx busybox | while read -r applet; do ln -s busybox "$root/bin/$applet"; done
ln -s /bin/busybox "$root/sbin/modprobe" # the kernel asks for modules here
# bring PROGRAM: with the libraries it is linked to.
bring() {
	cp "$(PATH=$PATH:/usr/sbin command -v "$1")" "$root/bin/$1.new"
	mv "$root/bin/$1.new" "$root/bin/$1" # which may have been a link
	ldd "$root/bin/$1" | grep -o '/[^ ]*' | while read -r l; do
		mkdir -p "$root/$(dirname "$l")"
		cp -L "$l" "$root/$l"
	done
}
bring nft
bring unshare # busybox knows no cgroup namespaces
bring nsenter

mkdir -p "$root/lib/modules/$version"
cp "$modules"/modules.* "$root/lib/modules/$version/"
for d in fs/overlayfs net lib crypto arch drivers/net/veth.ko drivers/net/dummy.ko; do
	mkdir -p "$root/lib/modules/$version/kernel/$(dirname $d)"
	cp -r "$modules/kernel/$d" "$root/lib/modules/$version/kernel/$d"
done
build/images/all.sh out/images >/dev/null
cp out/images/{busybox,perch-demo}.tar "$root/images/"
cp "$perch" "$root/bin/perch"
ln -s perch "$root/bin/perch-kubectl"
cp build/vm-guest.sh "$root/init"
cp build/vm-guest.yaml "$root/app.yaml"
cp build/vm-service.sh "$root/service.sh"
cp build/vm-container.sh "$root/container.sh"
cp build/vm-series.txt "$root/series.txt"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
printf 'nameserver 192.0.2.1\n' >"$root/etc/resolv.conf"
# The tests make an image of busybox by a script; there is no Go in the machine.
printf '#!/bin/sh\nexec cp /images/busybox.tar "$1"\n' >"$root/build/images/busybox.sh"
chmod +x "$root/build/images/busybox.sh"
for p in agent/cgroup agent/cgrouptree agent/stats agent/stats/cadvisor agent/runtime agent/runtime/containerd cmd/perch/daemon/preflight; do
	mkdir -p "$root/$p"
	go test -c -o "$root/$p/it.test" "./$p"
	[ ! -d "$p/testdata" ] || cp -r "$p/testdata" "$root/$p/"
	echo "$p" >>"$root/tests/list"
done
# Containers are slow there: only what has to do with cgroups.
echo '-test.run=Contract/.*uses|OOM|Shims|Cleanup' >"$root/agent/runtime/containerd/args"
truncate -s 3G "$work/disk"
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$work/disk"
rm -rf "$root"

# What comes before the disk can be read.
early=$work/early
mkdir -p "$early"/{bin,proc,dev,root,modules}
cp "$(command -v busybox)" "$early/bin/"
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk crc16 crc32c_generic mbcache jbd2 ext4; do
	f=$(find "$modules/kernel" -name "$m.ko")
	[ -z "$f" ] || { cp "$f" "$early/modules/"; echo "$m" >>"$early/modules/order"; } # else it is in the kernel
done
cat >"$early/init" <<'SH'
#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
while read -r m; do busybox insmod /modules/$m.ko; done </modules/order
busybox mount -t ext4 -o rw /dev/vda /root || exec busybox poweroff -f
busybox umount /proc
busybox mount --move /dev /root/dev
exec busybox switch_root /root /init
SH
chmod +x "$early/init"
(cd "$early" && busybox find . | busybox cpio -o -H newc) >"$work/initrd" 2>/dev/null

step "booting $version"
log=$work/console
status=0
timeout --foreground -k 5 "$limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 4096 -nodefaults -no-reboot -display none \
	-kernel "$cache/$package/boot/vmlinuz-$version" -initrd "$work/initrd" \
	-append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all VM_ONLY=${VM_ONLY:-}" \
	-drive "file=$work/disk,format=raw,if=virtio,cache=unsafe" \
	-serial stdio </dev/null | sed -u 's,\r$,,' | tee "$log" | grep --line-buffered -E '^(ok|FAIL|----) ' || status=$?
passed=$(grep -c '^ok ' "$log" || true) failed=$(grep -c '^FAIL ' "$log" || true)
if ! grep -qE '^---- [0-9]+s all is done$' "$log" || [ "$failed" != 0 ]; then
	echo "== the machine said"
	cat "$log"
	step "vm-test failed: $passed ok, $failed failed$([ $status = 0 ] || echo ", or not within $limit s")"
	exit 1
fi
step "$passed ok in a machine with cgroup version 2"
