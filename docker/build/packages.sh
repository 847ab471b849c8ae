#!/bin/sh
# packages.sh cpu|a100|v100|tensorboard: the locked Python packages in /opt/venv, hashes checked, with /opt/venv/sbom.cdx.json.
# Wheels in /build/wheels come first. PIP_NO_INDEX=1 asks no index at all.
# Secrets: ca_bundle, certificates of a private authority; pip_conf, a pip.conf with a private index. Neither is kept.
set -eu
target=$1
locks=/build/locks

python3 -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$PYTHON_VERSION" || {
    echo "packages.sh: the base of $target has $(python3 -V), the locks are for Python $PYTHON_VERSION" >&2
    exit 2
}
if [ -s /run/secrets/ca_bundle ]; then
    export PIP_CERT=/run/secrets/ca_bundle
fi
if [ -s /run/secrets/pip_conf ]; then
    export PIP_CONFIG_FILE=/run/secrets/pip_conf
fi
export PIP_CACHE_DIR=/var/cache/pip PIP_FIND_LINKS=/build/wheels PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
export DS_BUILD_OPS=0                  # DeepSpeed as plain Python: nothing here uses its compiled operations
export FLASH_ATTENTION_FORCE_BUILD=TRUE # else its setup.py fetches a wheel that nobody has hashed
export FLASH_ATTN_CUDA_ARCHS="80;90"

locked=$locks/$target.txt
[ "$target" != cpu ] || locked=/build/train.txt
# Two packages come as source, and their setup.py wants torch and setuptools in place.
split_locked() {
    awk -v want="$1" '/^[a-z0-9]/ { name = $1; sub(/==.*/, "", name); source = (name ~ /^(deepspeed|flash-attn)$/) }
        source == want' "$locked"
}
split_locked 0 >/tmp/wheels.txt
split_locked 1 >/tmp/sources.txt

python3 -m venv /opt/venv
install() {
    /opt/venv/bin/python -m pip install -q --no-deps --no-compile --require-hashes "$@"
}
if [ "$target" = cpu ]; then
    # pip prefers what an index lists, with its hash, to a file at hand; a CPU build put here is meant to be taken.
    set -- /build/wheels/torch-*+cpu-*.whl
    if [ -e "$1" ]; then set -- --no-index; else set --; fi
    install "$@" --only-binary :all: -r $locks/cpu.txt
fi
install --only-binary :all: -r /tmp/wheels.txt
if [ "$target" = cpu ]; then
    torch=$(/opt/venv/bin/python -c 'from importlib.metadata import version; print(version("torch"))')
    case $torch in
    *+cpu) echo "packages.sh: torch $torch, the CPU build" ;;
    *)
        echo "packages.sh: torch $torch is the default build; with its CUDA libraries this image has several GB more"
        install --only-binary :all: -r $locks/cpu-cuda.txt
        ;;
    esac
fi
if [ -s /tmp/sources.txt ]; then
    install --no-build-isolation --use-pep517 -r /tmp/sources.txt
fi

# The architectures torch has code for, without a GPU: get_arch_list() is empty then, this is what it reads.
case $target in a100) archs="sm_80 sm_90" ;; v100) archs=sm_70 ;; *) archs="" ;; esac
for arch in $archs; do
    built=$(/opt/venv/bin/python -c 'import torch; print(torch._C._cuda_getArchFlags())')
    case " $built " in
    *" $arch "*) ;;
    *)
        echo "packages.sh: this torch has no code for $arch, only for $built" >&2
        exit 1
        ;;
    esac
done

sh /build/sbom.sh

# Compiled files that know their source by hash, not by a time that differs in every build. A few packages carry
# templates that are no Python and cannot be compiled.
/opt/venv/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/venv || true
rm -f /tmp/*.txt
