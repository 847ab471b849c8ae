#!/bin/sh
# contents.sh: the hash of everything the image was made of, in /opt/densekit/contents.sha256.
# An engine's image id cannot be seen from inside, and differs from machine to machine; this can and does not.
set -eu
{ dpkg-query -W 2>/dev/null || true; } >/opt/densekit/packages.system
cd /opt
{
    find densekit -type f ! -name '*.pyc' ! -path '*.egg-info/*' ! -name contents.sha256
    echo venv/sbom.cdx.json
} | LC_ALL=C sort | xargs sha256sum >/tmp/contents
sha256sum </tmp/contents | cut -d ' ' -f 1 >/opt/densekit/contents.sha256
rm /tmp/contents
