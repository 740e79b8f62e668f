#!/usr/bin/env bash
# A real SLURM of two nodes, n1 and n2, on this machine, for tests: slurm/local_cluster.sh up|down|install [FOLDER]
#
#   install  Debian's or Ubuntu's packages slurm-wlm and munge, as root or by sudo; at most INSTALL_SECONDS (180).
#   up       Write the configuration into FOLDER (default: /tmp/pl-distill-slurm), start what does not run, wait until
#            both nodes are idle, print the line that a shell needs: export SLURM_CONF=...
#   down     Stop what `up` started, by its pid files, and delete FOLDER.
#
# Each node is a slurmd with a name, a port and a folder of its own (Debian builds with MULTIPLE_SLURMD). No accounting,
# no cgroups: it is for trying out job scripts, signals and requeues, not for sharing a machine.
set -euo pipefail

action=${1:-}
base=${2:-/tmp/pl-distill-slurm}
port=${PL_DISTILL_SLURM_PORT:-26817}  # slurmctld's; the nodes take the next two
export SLURM_CONF=$base/slurm.conf
export PATH=$PATH:/usr/sbin:/sbin

install() {
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then sudo=(sudo -n); fi
    exec 9> "${TMPDIR:-/tmp}/pl-distill-slurm-install-$(id -u).lock"
    flock --wait 300 9 # of several test processes one installs
    command -v slurmctld > /dev/null && command -v munged > /dev/null && return 0
    # A machine without network or rights must say so soon rather than hang a test run.
    local limit=(timeout --kill-after=5 "${INSTALL_SECONDS:-180}")
    "${limit[@]}" "${sudo[@]}" apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=15 update
    "${limit[@]}" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends -o Acquire::http::Timeout=15 install slurm-wlm munge
}

configure() {
    local host cores memory
    host=$(hostname -s)
    cores=$(nproc --all) # plain nproc obeys OMP_NUM_THREADS
    memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
    mkdir -p "$base"/{munge,state,spool}
    chmod 700 "$base/munge"
    if [ ! -s "$base/munge/key" ]; then
        (umask 077 && dd if=/dev/urandom of="$base/munge/key" bs=1024 count=1 status=none)
    fi
    # cred_expire is also how long a requeued job waits before it may start again; SLURM's default is 120 seconds.
    # The two slurmd share the machine: each offers all of its cores.
    cat > "$SLURM_CONF" <<CONF
ClusterName=pl-distill
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$base/munge/socket,cred_expire=5
StateSaveLocation=$base/state
SlurmdSpoolDir=$base/spool/%n
SlurmctldPidFile=$base/slurmctld.pid
SlurmdPidFile=$base/slurmd-%n.pid
SlurmctldLogFile=$base/slurmctld.log
SlurmdLogFile=$base/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
JobRequeue=1
ReturnToService=2
KillWait=10
SlurmdTimeout=10
MinJobAge=3600
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=$cores Boards=1 SocketsPerBoard=1 CoresPerSocket=$cores ThreadsPerCore=1 RealMemory=$memory
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=$cores Boards=1 SocketsPerBoard=1 CoresPerSocket=$cores ThreadsPerCore=1 RealMemory=$memory
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

runs() { [ -s "$base/$1.pid" ] && kill -0 "$(cat "$base/$1.pid")" 2> /dev/null; }

up() {
    configure
    runs munged || munged --force --socket="$base/munge/socket" --key-file="$base/munge/key" \
        --pid-file="$base/munged.pid" --log-file="$base/munged.log" --seed-file="$base/munge/seed"
    runs slurmctld || slurmctld -f "$SLURM_CONF"
    for node in n1 n2; do
        runs slurmd-$node || slurmd -N $node -f "$SLURM_CONF"
    done
    for _ in $(seq 150); do
        if [ "$(sinfo --noheader --Node --format=%T 2> /dev/null | grep -c -E '^(idle|mixed|allocated)$')" -eq 2 ]; then
            echo "export SLURM_CONF=$SLURM_CONF"
            return 0
        fi
        sleep 0.2
    done
    echo "the nodes did not come up within 30 seconds; see $base/slurmctld.log and $base/slurmd-n1.log" >&2
    return 1
}

down() {
    if runs slurmctld; then scancel --state=PENDING,RUNNING --user="$(id -un)" 2> /dev/null || true; sleep 1; fi
    for daemon in slurmd-n1 slurmd-n2 slurmctld munged; do
        if runs $daemon; then kill "$(cat "$base/$daemon.pid")"; fi
    done
    for daemon in slurmd-n1 slurmd-n2 slurmctld munged; do
        for _ in $(seq 50); do runs $daemon || break; sleep 0.1; done
    done
    if [ -f "$SLURM_CONF" ]; then rm -rf "$base"; fi  # only a folder that `up` has made
}

case $action in
    install | up | down) "$action" ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
