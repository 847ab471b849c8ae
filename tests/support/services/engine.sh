#!/usr/bin/env bash
# A private Docker engine for tests, where none is running: dockerd with compose and buildx, started by hand (no systemd),
# with its packages, its images and its socket below DIR. It has no network but `host` and `none`, and it
# takes requests for GPUs without having any.
#
#   engine.sh up DIR     install what is missing, start it, wait until it answers
#   engine.sh env DIR    print the variables that reach it, for eval
#   engine.sh down DIR   stop it and remove its images
#
# Needs root on Debian 12 or newer and, the first time, its package mirror.
set -euo pipefail
verb=$1
dir=$(readlink -m "$2")
socket=$dir/docker.sock
programs=$dir/tree/usr/bin:$dir/tree/usr/sbin

fail() {
  echo "engine.sh: $*" >&2
  exit 1
}

case $verb in
  env)
    echo "export DOCKER_HOST=unix://$socket DOCKER_CONFIG=$dir/config PATH=$dir/tree/usr/bin:\$PATH"
    exit
    ;;
  down)
    if [ -s "$dir/dockerd.pid" ] && kill -TERM "$(cat "$dir/dockerd.pid")" 2> /dev/null; then
      for _ in $(seq 300); do
        [ -e "$dir/dockerd.pid" ] || break
        sleep 0.1
      done
    fi
    umount "$dir/exec/netns/default" 2> /dev/null || true
    rm -rf "$dir/data" "$dir/exec"
    exit
    ;;
  up) ;;
  *) fail "up, env or down, not $verb" ;;
esac

[ "$(id -u)" = 0 ] || fail 'only root can start an engine'
sources=/etc/apt/sources.list.d/debian.sources
[ -f "$sources" ] || fail "no $sources: the engine's packages come from Debian"
mkdir -p "$dir"/{apt/lists/partial,apt/cache/archives/partial,packages,tree,config/cli-plugins,hook}

if ! dpkg -s runc iptables busybox-static > /dev/null 2>&1; then
  apt-get -qq update
  apt-get install -y -qq --no-install-recommends runc iptables busybox-static > /dev/null \
    || fail 'apt-get cannot install runc, iptables and busybox-static'
fi
if [ ! -x "$dir/tree/usr/sbin/dockerd" ]; then
  # Unpacked below DIR, not installed: no package of the system is replaced. forky's engine runs on Debian 12,
  # whose own has neither compose nor buildx; only its runc does not, so that comes from the system.
  mirror=$(sed -n 's/^URIs: //p' "$sources" | head -1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror forky main" > "$dir/apt/list"
  apt=(apt-get -qq -o "Dir::Etc::SourceList=$dir/apt/list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$dir/apt/lists" -o "Dir::Cache=$dir/apt/cache" -o APT::Sandbox::User=root)
  "${apt[@]}" update
  (cd "$dir/packages" && "${apt[@]}" download docker.io docker-cli docker-buildx docker-compose containerd) \
    || fail "the packages of the engine cannot be fetched from $mirror"
  for package in "$dir"/packages/*.deb; do dpkg -x "$package" "$dir/tree"; done
  rm -rf "$dir/packages" "$dir/apt"
  ln -sf "$dir"/tree/usr/libexec/docker/cli-plugins/* "$dir/config/cli-plugins/"
fi

# In a container without CAP_SYS_RESOURCE runc cannot raise limits: this runtime lowers what is asked for, and then is runc.
cat > "$dir/runc-clamped" << 'END'
#!/usr/bin/python3
"""Take out of an OCI bundle what this process may not grant, then run runc."""
import json, os, resource, sys

arguments = sys.argv[1:]
if "create" in arguments:
    bundle = arguments[arguments.index("--bundle") + 1] if "--bundle" in arguments else "."
    path = os.path.join(bundle, "config.json")
    with open(path) as file:
        spec = json.load(file)
    with open("/proc/self/status") as file:
        bounding = int(next(line for line in file if line.startswith("CapBnd")).split()[1], 16)
    if not bounding >> 24 & 1:  # CAP_SYS_RESOURCE
        process = spec["process"]
        for names in (process.get("capabilities") or {}).values():
            if "CAP_SYS_RESOURCE" in (names or []):
                names.remove("CAP_SYS_RESOURCE")
        for limit in process.get("rlimits") or []:
            hard = resource.getrlimit(getattr(resource, limit["type"]))[1]
            most = 2**64 - 1 if hard == resource.RLIM_INFINITY else hard
            limit["hard"] = min(limit["hard"], most)
            limit["soft"] = min(limit["soft"], limit["hard"])
        process["oomScoreAdj"] = max(process.get("oomScoreAdj") or 0, 0)
        with open(path, "w") as file:
            json.dump(spec, file)
os.execvp("runc", ["runc", *arguments])
END
# dockerd takes `--gpus` when it finds this program; the real one would mount devices.
printf '#!/bin/sh\ncat >/dev/null\nexit 0\n' > "$dir/hook/nvidia-container-runtime-hook"
chmod 755 "$dir/runc-clamped" "$dir/hook/nvidia-container-runtime-hook"
cat > "$dir/daemon.json" << END
{"default-runtime": "clamped",
 "runtimes": {"clamped": {"path": "$dir/runc-clamped"}, "nvidia": {"path": "$dir/runc-clamped"}},
 "storage-driver": "overlay2", "bridge": "none", "iptables": false, "ip6tables": false,
 "data-root": "$dir/data", "exec-root": "$dir/exec", "pidfile": "$dir/dockerd.pid",
 "hosts": ["unix://$socket"], "features": {"buildkit": true}}
END
PATH=$dir/hook:$programs:$PATH setsid "$dir/tree/usr/sbin/dockerd" --config-file "$dir/daemon.json" \
  > "$dir/dockerd.log" 2>&1 < /dev/null &
for _ in $(seq 300); do
  DOCKER_HOST=unix://$socket "$dir/tree/usr/bin/docker" version > /dev/null 2>&1 && exit 0
  sleep 0.1
done
tail -5 "$dir/dockerd.log" >&2
fail 'dockerd does not answer'
