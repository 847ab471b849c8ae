#!/bin/sh
# Says what this container can do (DENSEKIT_SELFTEST=0: nothing is said or checked), then becomes the command.
set -eu
if [ -z "${DENSEKIT_IMAGE_ID:-}" ]; then
    # Nobody said which image this is: the hash of what it was made of.
    DENSEKIT_IMAGE_ID="contents-sha256:$(cat /opt/densekit/contents.sha256)"
    export DENSEKIT_IMAGE_ID
fi
if [ "${DENSEKIT_SELFTEST:-1}" != 0 ]; then
    densekit selftest >&2
fi
exec "$@"
