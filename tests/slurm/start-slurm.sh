#!/usr/bin/env bash
# One-node SLURM for tests: root, no systemd, no cgroups, no database, loopback only. Idempotent.
# Knobs (CPUs and GPUs are claimed, never enforced): SLURM_TEST_ROOT, _CPUS, _MEM_MB, _GPUS
set -euo pipefail
root=${SLURM_TEST_ROOT:-${TMPDIR:-/tmp}/one-node-slurm} host=$(hostname -s) here=$(cd "$(dirname "$0")" && pwd)
cpus=${SLURM_TEST_CPUS:-4} mem=${SLURM_TEST_MEM_MB:-65536} gpus=${SLURM_TEST_GPUS:-2}
export SLURM_CONF=$root/etc/slurm.conf DEBIAN_FRONTEND=noninteractive
addr=$(getent ahostsv4 "$(hostname)" | awk 'NR == 1 { print $1 }') || true # No*InAddrAny binds what the hostname
bind=${addr:+CommunicationParameters=NoCtldInAddrAny,NoInAddrAny} addr=${addr:-127.0.0.1} # resolves to, or dies
((EUID == 0)) || { echo "start-slurm: needs root" >&2; exit 1; }
state() { timeout 5 sinfo -h -p debug -o %t 2>/dev/null || true; }
alive() { # by pid file; not a zombie (no exe), not another program under a used-again pid
  local p; p=$(cat "$root/$1.pid" 2>/dev/null) && [[ $(cat "/proc/$p/comm") == "$1" && $(readlink "/proc/$p/exe") ]]
} 2>/dev/null
if ! { command -v munged && command -v slurmctld && command -v slurmd && command -v sbatch; } >/dev/null; then
  rc=/usr/sbin/policy-rc.d # keeps the packages from starting daemons of their own
  [[ -e $rc ]] || { trap 'rm -f "$rc"' EXIT; printf '#!/bin/sh\nexit 101\n' >"$rc"; chmod 755 "$rc"; }
  apt-get update -qq || echo "start-slurm: apt-get update failed, trying on" >&2
  apt-get install -qq -y --no-install-recommends slurm-wlm munge >/dev/null
fi
if ! { alive munged && alive slurmctld && alive slurmd; }; then
  SLURM_TEST_ROOT=$root "$here/stop-slurm.sh" # a half-dead cluster is started afresh
  rm -rf "${root:?}"/{etc,state,spool,munge}
  mkdir -p "$root"/{etc,log,state,spool,munge}; chmod 755 "$root" "$root"/{etc,log,spool,munge}
  (umask 077; head -c 128 /dev/urandom >"$root/munge/key")
  for ((i = 0; i < gpus; i++)); do # a GPU must be a device file, else CUDA_VISIBLE_DEVICES is not set
    mknod "$root/etc/nvidia$i" c 1 3; echo "Name=gpu File=$root/etc/nvidia$i"
  done >"$root/etc/gres.conf"
  tasks=task/none # memory is enforced where this machine's memory cgroup is to be had
  if [[ -w /sys/fs/cgroup/memory/cgroup.procs ]]; then
    tasks=task/cgroup
    printf '%s\n' CgroupPlugin=cgroup/v1 ConstrainRAMSpace=yes >"$root/etc/cgroup.conf"
  fi
  sed 's/; */\n/g' >"$SLURM_CONF" <<CONF # slurm.conf takes one key a line
ClusterName=test; SlurmctldHost=$host($addr); SlurmUser=root; SlurmdUser=root; MailProg=/bin/true
# cred_expire is also how long a requeued job waits (default 120 s)
AuthType=auth/munge; AuthInfo=socket=$root/munge/socket,cred_expire=5
$bind
SlurmctldPidFile=$root/slurmctld.pid; SlurmctldLogFile=$root/log/slurmctld.log; StateSaveLocation=$root/state
SlurmdPidFile=$root/slurmd.pid; SlurmdLogFile=$root/log/slurmd.log; SlurmdSpoolDir=$root/spool
ProctrackType=proctrack/linuxproc; TaskPlugin=$tasks
JobAcctGatherType=jobacct_gather/none; AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres; SelectTypeParameters=CR_Core_Memory; DefMemPerCPU=4096; GresTypes=gpu
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides; ReturnToService=2; KillWait=5; MinJobAge=3600
# ids never come back after a restart: submitit would take the old job's result pickle for the new one's
FirstJobId=$(($(date +%s) % 60000000))
PreemptType=preempt/partition_prio; PreemptMode=REQUEUE; SlurmctldParameters=preempt_send_user_signal
NodeName=$host NodeAddr=$addr CPUs=$cpus RealMemory=$mem Gres=gpu:$gpus State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=15
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=2
CONF
  munged --key-file="$root/munge/key" --socket="$root/munge/socket" --pid-file="$root/munged.pid" \
    --log-file="$root/log/munged.log" --seed-file="$root/munge/seed"
  slurmctld && slurmd || { SLURM_TEST_ROOT=$root "$here/stop-slurm.sh"; exit 1; }
  [[ -e /etc/slurm/slurm.conf ]] || ln -sfn "$SLURM_CONF" /etc/slurm/slurm.conf # SLURM_CONF optional
fi
for ((SECONDS = 0; SECONDS < 30; )); do # sinfo says idle for minutes after a slurmd died
  [[ $(state) =~ ^(idle|mix|alloc)$ ]] && alive slurmd &&
    { echo "export SLURM_CONF=$SLURM_CONF"; exit 0; }
  sleep 0.25
done
echo "start-slurm: node is '$(state)' after 30 s" >&2; tail -n 20 "$root"/log/slurm*.log >&2
SLURM_TEST_ROOT=$root "$here/stop-slurm.sh"; exit 1
