#!/usr/bin/env bash
# A real SLURM on this one machine, for the tests: Debian's own packages, as root, without systemd and control groups.
#
#   cluster.sh install       what is missing of the packages, by apt-get
#   cluster.sh start FOLDER  write the configuration, start the daemons on the loopback address, run one task
#   cluster.sh stop FOLDER   end the jobs and exactly the daemons that were started
#
# Afterwards SLURM_CONF=FOLDER/slurm.conf is all that sbatch, srun and squeue need. FOLDER is to be short: the path of a
# socket in it may have 107 characters. CLUSTER_PORT (16917) is the first of two ports, CLUSTER_CPUS (4) what the
# node claims to have.
set -euo pipefail

packages=(slurmctld slurmd slurm-client munge)
port=${CLUSTER_PORT:-16917}
cpus=${CLUSTER_CPUS:-4}

fail() { echo "cluster.sh: $*" >&2; exit 1; }

install() {
    local package missing=()
    for package in "${packages[@]}"; do
        [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "needs apt-get to install ${missing[*]}"
    [[ $(id --user) == 0 ]] || fail "needs root to install ${missing[*]}"
    # Debian's packages start their daemons unless this file says no.
    local policy=/usr/sbin/policy-rc.d ours=
    if [[ ! -e $policy ]]; then
        ours=$policy
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    local said
    said=$({ apt-get update --quiet && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes \
        --no-install-recommends "${missing[@]}"; } 2>&1) || { [[ -z $ours ]] || rm "$ours"; fail "apt-get: ${said: -600}"; }
    [[ -z $ours ]] || rm "$ours"
}

configure() {
    mkdir --parents "$folder"/{state,spool,log,pid}
    chmod 755 "$folder"
    [[ -s $folder/munge.key ]] || (umask 077 && head --bytes 1024 /dev/urandom >"$folder/munge.key")
    local memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 2048)) host
    host=$(hostname --short)
    cat >"$folder/slurm.conf" <<CONFIGURATION
ClusterName=mwanda
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
# Jobs run as root: nobody else on the network may send any.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its credentials have expired: by default two minutes.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
# The defaults of these want control groups, which a container does not give; only a task shows it.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SwitchType=switch/none
MpiDefault=none
# Several jobs on the node, as many as fit.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
# What can never run is refused, not left pending.
EnforcePartLimits=ALL
MaxArraySize=16
# Partition urgent pushes jobs out of main; they get the signal of their time limit, and are queued again.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=5
MinJobAge=300
ReturnToService=2
# Without slurmdbd there is no sacct, as on many a small cluster.
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/log/jobs.log
MailProg=/bin/true
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/pid/slurmctld.own
SlurmdPidFile=$folder/pid/slurmd.own
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
NodeName=node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=60 DefaultTime=10 PriorityTier=9 PreemptMode=OFF
CONFIGURATION
    touch "$folder/log/jobs.log"
}

# runs NAME: the process that was started under this name is still that program
runs() {
    local pid
    pid=$(cat "$folder/pid/$1" 2>/dev/null) && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$1" ]]
}

# daemon NAME ARGUMENT…: start it detached, in its foreground mode, and remember its process
daemon() {
    runs "$1" && return
    setsid "$@" >>"$folder/log/$1.out" 2>&1 </dev/null &
    echo $! >"$folder/pid/$1"
}

# until_works SECONDS NAME COMMAND…: give up when the daemon has died or the time is over
until_works() {
    local end=$((SECONDS + $1)) name=$2
    shift 2
    until timeout 10 "$@" >/dev/null 2>&1; do
        sleep 0.2
        if ((SECONDS >= end)); then
            tail --lines 15 "$folder"/log/*.log "$folder"/log/*.out >&2 || true
            stop
            fail "$name did not come up"
        fi
    done
}

start() {
    command -v slurmctld slurmd sbatch munged >/dev/null || fail "SLURM is not installed: cluster.sh install"
    ((${#folder} < 90)) || fail "$folder is too long for a socket in it"
    configure
    export SLURM_CONF=$folder/slurm.conf
    daemon munged --foreground --force --num-threads=2 --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
        --pid-file="$folder/pid/munged.own" --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed"
    until_works 10 munged munge --no-input --socket="$folder/munge.socket"
    daemon slurmctld -D -f "$SLURM_CONF"
    until_works 30 slurmctld scontrol ping
    daemon slurmd -D -N node -f "$SLURM_CONF"
    # A node that calls itself idle may still fail at every task. SLURM_* of the caller are options to srun.
    until_works 60 slurmd env --ignore-environment PATH="$PATH" SLURM_CONF="$SLURM_CONF" srun --immediate=10 hostname
}

stop() {
    export SLURM_CONF=$folder/slurm.conf
    if runs slurmctld; then # while somebody listens: what runs a job waits for ever when it cannot report its end
        timeout 10 scancel --user="$(id --user --name)" >/dev/null 2>&1 || true
        local left=40
        while [[ -n $(timeout 10 squeue --noheader 2>/dev/null) ]] && ((left--)); do sleep 0.5; done
    fi
    local name pid
    for name in slurmd slurmctld munged; do
        runs "$name" || continue
        pid=$(cat "$folder/pid/$name")
        kill "$pid" || true
        local left=75
        while runs "$name" && ((left--)); do sleep 0.2; done
        ! runs "$name" || kill -KILL "$pid"
        rm --force "$folder/pid/$name"
    done
    # What still runs a job of this cluster, and no other's.
    for pid in $(pgrep --exact slurmstepd || true); do
        ! grep --quiet --null-data --line-regexp --fixed-strings "SLURM_CONF=$SLURM_CONF" "/proc/$pid/environ" 2>/dev/null || kill -KILL "$pid"
    done
}

case ${1:-} in
    install) install ;;
    start | stop)
        [[ -n ${2:-} ]] || fail "$1 needs a folder"
        mkdir --parents "$2"
        folder=$(cd "$2" && pwd)
        "$1"
        ;;
    *) sed --quiet '2,11s/^# \?//p' "$0" >&2; exit 2 ;;
esac
