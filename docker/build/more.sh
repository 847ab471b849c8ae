#!/bin/sh
# more.sh FOLDER LOCK...: more than the trainer's packages, from locks in /build/requirements, hashes checked, into FOLDER of
# /opt/venv (`.`: among the trainer's), and the list of packages with them.
# Wheels in /build/wheels come first. PIP_NO_INDEX=1 asks no index at all.
# Secrets: ca_bundle, certificates of a private authority; pip_conf, a pip.conf with a private index. Neither is kept.
set -eu
folder=/opt/venv/$1
shift
if [ -s /run/secrets/ca_bundle ]; then
    export PIP_CERT=/run/secrets/ca_bundle
fi
if [ -s /run/secrets/pip_conf ]; then
    export PIP_CONFIG_FILE=/run/secrets/pip_conf
fi
export PIP_CACHE_DIR=/var/cache/pip PIP_FIND_LINKS=/build/wheels PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# shellcheck disable=SC2046 # names of locks, without spaces
set -- $(printf -- ' -r /build/requirements/%s.txt' "$@")
if [ "$folder" = /opt/venv/. ]; then
    /opt/venv/bin/python -m pip install -q --no-deps --no-compile --require-hashes --only-binary :all: "$@"
    sh /build/sbom.sh
else
    /opt/venv/bin/python -m pip install -q --no-deps --no-compile --require-hashes --target "$folder" "$@"
    sh /build/sbom.sh "$folder"
fi
