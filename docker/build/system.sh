#!/bin/sh
# system.sh PACKAGE...: operating-system packages, those that the base does not have yet.
# A base that has them all needs no network here, which makes a build without one possible.
set -eu
missing=""
for package in "$@"; do
    case $package in
    tini | python3) command -v "$package" >/dev/null || missing="$missing $package" ;;
    python3-venv) python3 -c 'import ensurepip' 2>/dev/null || missing="$missing $package" ;;
    *) dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

export DEBIAN_FRONTEND=noninteractive
# NVIDIA's own source is not needed, and its key and host are one more thing that can fail.
rm -f /etc/apt/sources.list.d/cuda*.list
apt-get -qq update
# shellcheck disable=SC2086 # one word per package
apt-get install -y -qq --no-install-recommends $missing >/dev/null
# What differs from build to build and serves nobody.
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache /var/log/*
