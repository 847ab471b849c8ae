#!/usr/bin/env bash
# A private Slurm for tests, where none is running: munged, slurmctld and some slurmd on this one host, on the loopback
# device, with four pretend GPUs a node. There is room for one on a host: its ports are fixed.
#
#   slurm.sh up DIR [NODES]   install what is missing, start it, wait until every node is idle
#   slurm.sh env DIR          print the variable that reaches it, for eval
#   slurm.sh down DIR         stop it
#
# Needs root on Debian or Ubuntu and, the first time, its package mirror.
set -euo pipefail
verb=$1
dir=$(readlink -m "$2")
nodes=${3:-2}
export SLURM_CONF=$dir/slurm.conf
# munged runs as a user of its own, so its folder cannot lie below a private DIR.
munge=/run/munge-$(printf %s "$dir" | cksum | cut -d' ' -f1)

fail() {
  echo "slurm.sh: $*" >&2
  exit 1
}

case $verb in
  env)
    echo "export SLURM_CONF=$SLURM_CONF"
    echo "export DENSEKIT_PRIVATE_SLURM=$dir"
    exit
    ;;
  down)
    for file in "$dir"/run/slurmd.*.PID "$dir"/run/slurmctld.PID "$dir"/run/munged.PID; do
      [ -e "$file" ] || continue
      pid=$(cat "$file")
      kill "$pid" 2> /dev/null || continue
      for try in $(seq 100); do
        kill -0 "$pid" 2> /dev/null || break
        if [ "$try" = 50 ]; then kill -9 "$pid" 2> /dev/null || true; fi
        sleep 0.1
      done
    done
    rm -rf "$munge"
    exit
    ;;
  up) ;;
  *) fail "up, env or down, not $verb" ;;
esac

[ "$(id -u)" = 0 ] || fail 'only root can start a Slurm'
packages=(slurmctld slurmd slurm-client munge)
if ! dpkg -s "${packages[@]}" > /dev/null 2>&1; then
  apt-get -qq update
  apt-get install -y -qq --no-install-recommends "${packages[@]}" > /dev/null \
    || fail "apt-get cannot install ${packages[*]}"
fi
if (exec 3<> /dev/tcp/127.0.0.1/16817) 2> /dev/null; then
  fail 'a controller already listens on port 16817: stop that one first'
fi
mkdir -p "$dir"/{run,ctld,spool,log,dev}
install -d -o munge -g munge -m 755 "$munge"
for number in 0 1 2 3; do [ -e "$dir/dev/gpu$number" ] || mknod "$dir/dev/gpu$number" c 1 3; done
host=$(hostname -s)
cat > "$SLURM_CONF" << END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$munge/munge.sock
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/ctld
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
SlurmctldPort=16817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobcomp.txt
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
KillWait=2
MinJobAge=600
PropagateResourceLimits=NONE
PlugStackConfig=$dir/plugstack.conf
GresTypes=gpu
NodeName=n[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[16821-$((16820 + nodes))] CPUs=2 RealMemory=2000 Gres=gpu:fake:4 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
echo "NodeName=n[1-$nodes] Name=gpu Type=fake File=$dir/dev/gpu[0-3]" > "$dir/gres.conf"
[ -e "$dir/plugstack.conf" ] || : > "$dir/plugstack.conf"

start() {
  local name=$1
  shift
  setsid "$@" > "$dir/log/$name.out" 2>&1 < /dev/null &
  echo $! > "$dir/run/$name.PID"
}
start munged setpriv --reuid munge --regid munge --clear-groups munged --foreground --socket="$munge/munge.sock" \
  --pid-file="$munge/munged.pid" --log-file="$munge/munged.log" --seed-file="$munge/seed"
for try in $(seq 50); do
  munge -S "$munge/munge.sock" -n > /dev/null 2>&1 && break
  if [ "$try" = 50 ]; then
    cat "$dir/log/munged.out" >&2
    fail 'munged does not answer'
  fi
  sleep 0.1
done
start slurmctld slurmctld -D
for number in $(seq "$nodes"); do start "slurmd.n$number" slurmd -D -N "n$number"; done
for _ in $(seq 100); do
  [ "$(timeout 5 sinfo -h -N -t idle -o %N 2> /dev/null | wc -l)" = "$nodes" ] && exit 0
  sleep 0.2
done
sinfo -N -l >&2
fail 'the nodes do not become idle'
