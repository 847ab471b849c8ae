#!/bin/sh
# video.sh: PyAV beside the trainer's packages in /opt/venv, hashes checked: what decodes videos.
# Wheels in /build/wheels come first. PIP_NO_INDEX=1 asks no index at all.
# Secrets: ca_bundle, certificates of a private authority; pip_conf, a pip.conf with a private index. Neither is kept.
set -eu
if [ -s /run/secrets/ca_bundle ]; then
    export PIP_CERT=/run/secrets/ca_bundle
fi
if [ -s /run/secrets/pip_conf ]; then
    export PIP_CONFIG_FILE=/run/secrets/pip_conf
fi
export PIP_CACHE_DIR=/var/cache/pip PIP_FIND_LINKS=/build/wheels PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
/opt/venv/bin/python -m pip install -q --no-deps --no-compile --require-hashes --only-binary :all: \
    -r /build/requirements/video.txt
