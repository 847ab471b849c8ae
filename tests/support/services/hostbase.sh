#!/usr/bin/env bash
# A base image with busybox and Debian's Python 3.11 out of the packages that are installed on this host: needs no
# registry and no network. Writes a tar archive for `docker import`.
#
#   hostbase.sh OUT.tar
set -euo pipefail
out=$1
needed=(busybox-static python3.11 python3.11-venv)
wanted=("${needed[@]}" libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0
  libuuid1 libreadline8 libtinfo6 libncursesw6 libdb5.3 libcrypt1 libnsl2 libtirpc3 libgssapi-krb5-2 libkrb5-3
  libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 media-types python3 python3-minimal python3.11-minimal
  libpython3-stdlib libpython3.11-minimal libpython3.11-stdlib python3-pip-whl python3-setuptools-whl
  python3-distutils python3-lib2to3)
if ! dpkg -s "${needed[@]}" > /dev/null 2>&1; then
  apt-get -qq update
  if ! apt-get install -y -qq --no-install-recommends "${needed[@]}" > /dev/null; then
    echo "hostbase.sh: apt-get cannot install ${needed[*]}" >&2
    exit 1
  fi
fi
installed=()
for package in "${wanted[@]}"; do
  if dpkg -s "$package" > /dev/null 2>&1; then installed+=("$package"); fi
done

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/usr/{bin,lib,sbin,lib64} "$root"/{etc,tmp,root,proc,sys,dev,var/tmp}
chmod 1777 "$root/tmp" "$root/var/tmp"
for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$root/$folder"; done
# Every file and link of the packages, at the place where its folder really is (/lib is /usr/lib).
dpkg -L "${installed[@]}" | grep -v -E '^/usr/share/(doc|man|lintian|locale|bug)' | sort -u | while read -r path; do
  if { [ -f "$path" ] || [ -L "$path" ]; } && [ ! -d "$path" ]; then
    printf '%s/%s\n' "$(cd "${path%/*}/" && pwd -P)" "${path##*/}"
  fi
done | sort -u | tar -C / -cf - --no-recursion -T - 2> /dev/null | tar -C "$root" -xf -
cp /bin/busybox "$root/usr/bin/busybox"
chroot "$root" /bin/busybox --install -s /usr/bin 2> /dev/null || true
echo 'root:x:0:0:root:/root:/bin/sh' > "$root/etc/passwd"
echo 'root:x:0:' > "$root/etc/group"
cp /etc/os-release "$root/etc/os-release"
chroot "$root" /bin/busybox true
ldconfig -r "$root" 2> /dev/null || true
tar -C "$root" -cf "$out" .
