#!/bin/sh
# finish.sh: densekit's command, the folders a run uses, and the hash of everything the image was made of.
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

# An engine's image id cannot be seen from inside, and differs from machine to machine; this can and does not.
{ dpkg-query -W 2>/dev/null || true; } >/opt/densekit/packages.system
cd /opt
{
    find densekit -type f ! -name '*.pyc' ! -path '*.egg-info/*'
    echo venv/sbom.cdx.json
} | LC_ALL=C sort | xargs sha256sum >/tmp/contents
sha256sum </tmp/contents | cut -d ' ' -f 1 >/opt/densekit/contents.sha256
rm /tmp/contents
