#!/bin/sh
# finish.sh: densekit's command, the folders a run uses, and the hash that contents.sh makes.
set -eu
export PIP_NO_INDEX=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
if [ -n "${VERSION:-}" ]; then # the context has no .git to tell it
    export SETUPTOOLS_SCM_PRETEND_VERSION_FOR_DENSEKIT="$VERSION"
fi
/opt/venv/bin/python -m pip install -q --no-deps --no-build-isolation --no-compile --editable /opt/densekit
/opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/densekit

for folder in /var/lib/densekit /workspace /workspace/data /workspace/models /workspace/runs \
    /workspace/.cache /workspace/.cache/densekit; do
    mkdir -p "$folder"
    chown 1000:1000 "$folder"
    chmod 1777 "$folder"
done

sh /build/contents.sh
