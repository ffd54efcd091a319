#!/usr/bin/env bash
# Sweeps on a real Slurm: a controller and two nodes on this machine, with a configuration, a key and
# ports of their own, under a temporary directory. Nothing of the system is touched.
#
#     apt install slurmctld slurmd slurm-client munge python3
#     scripts/slurm_test.sh [GFN]            # default: target/release/gfn; takes two minutes
#
# Any user may run it: Slurm and munge run as that user, and so do the jobs. With KEEP=1 the directory stays.
set -euo pipefail
export LC_ALL=C

gfn=$(realpath "${1:-$(dirname "$0")/../target/release/gfn}")
[ -x "$gfn" ] || { echo "no program $gfn: cargo build --release" >&2; exit 3; }
PATH=$PATH:/usr/sbin:/sbin
for program in munged slurmctld slurmd sbatch python3; do
    command -v "$program" >/dev/null || {
        echo "no $program: apt install slurmctld slurmd slurm-client munge python3" >&2
        exit 3
    }
done

top=$(mktemp -d "${TMPDIR:-/tmp}/gfn-slurm.XXXXXX")
chmod 711 "$top"
export SLURM_CONF=$top/slurm.conf
# A directory that has to be quoted everywhere.
work="$top/it's \"100%\" a b"
mkdir "$work"
daemons=()

finish() {
    code=$?
    set +e
    trap - EXIT
    if [ "$code" != 0 ]; then
        echo "-- queue" >&2
        squeue --all >&2
        shopt -s nullglob
        for log in "$top"/*.log "$work"/*/results/*/logs/*.log; do
            printf -- '-- %s\n' "$log" >&2
            tail -n 25 "$log" >&2
        done
    fi
    scancel --quiet --user="$(id -un)" 2>/dev/null
    for _ in $(seq 50); do [ -z "$(squeue --noheader 2>/dev/null)" ] && break; sleep 0.2; done
    [ "${#daemons[@]}" = 0 ] || kill "${daemons[@]}" 2>/dev/null
    wait
    if [ -n "${KEEP:-}" ]; then echo "kept: $top" >&2; else rm -rf "$top"; fi
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() { echo "not ok: $*" >&2; exit 1; }
ok() { printf 'ok: %s (%s s)\n' "$*" "$SECONDS"; }
equal() { [ "$1" = "$2" ] || fail "$3: \`$1\`, expected \`$2\`"; }
# until_true SECONDS WHAT COMMAND...
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || fail "waited in vain for: $what"
        sleep 0.1
    done
}

# --- a cluster

user=$(id -un)
host=$(uname -n)
port=$((20000 + RANDOM % 10000))
(umask 077; head -c 128 /dev/urandom >"$top/munge.key")
munged --foreground --force --key-file="$top/munge.key" --socket="$top/munge.socket" \
    --pid-file="$top/munged.pid" --log-file="$top/munged.log" --seed-file="$top/munge.seed" \
    >/dev/null 2>&1 &
daemons+=($!)
until_true 10 "munge" test -S "$top/munge.socket"

# cred_expire is what a requeued task waits at least: two minutes by default.
cat >"$SLURM_CONF" <<CONF
ClusterName=gfn
SlurmctldHost=${host%%.*}(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$top/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$top/state
SlurmdSpoolDir=$top/spool.%n
SlurmctldPidFile=$top/slurmctld.pid
SlurmdPidFile=$top/slurmd.%n.pid
SlurmctldLogFile=$top/slurmctld.log
SlurmdLogFile=$top/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=900
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=4
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=4
PartitionName=low Nodes=ALL Default=YES PriorityTier=1
PartitionName=high Nodes=ALL PriorityTier=9 PreemptMode=OFF
CONF
mkdir "$top/state"
slurmctld -D -f "$SLURM_CONF" >/dev/null 2>&1 &
daemons+=($!)
for node in n1 n2; do
    mkdir "$top/spool.$node"
    slurmd -D -f "$SLURM_CONF" -N "$node" >/dev/null 2>&1 &
    daemons+=($!)
done
idle() { [ "$(sinfo --noheader --Node --partition=low --states=idle -o %N 2>/dev/null | wc -l)" = 2 ]; }
until_true 30 "two idle nodes" idle
ok "$(slurmctld -V), two nodes"

# --- experiments

# The reward: counts cells; it says when it starts and ends, and waits as long as the file `pause` says
# for each batch. It fails without the file that its argument names.
cat >"$work/reward.sh" <<'REWARD'
[ -z "${1:-}" ] || [ -e "$1" ] || { echo "no file $1" >&2; exit 1; }
say() { echo "$EPOCHREALTIME $1 $$" >>events; }
say +1
trap 'say -1' EXIT
trap 'exit 0' TERM
answer=
while IFS= read -r line; do
    if [ -n "$line" ]; then
        answer+="$((${line//[!0-9]/+} + 1))"$'\n'
        continue
    fi
    if read -r pause <pause; then sleep "$pause"; fi 2>/dev/null
    printf '%s' "$answer"
    answer=
done
REWARD

# spec NAME AXES...: a spec of 200 iterations, in a folder of its own. Checkpoints are made only at the
# end, or when a signal asks for one: who goes on from the middle has been asked.
spec() {
    mkdir "$work/$1"
    cp "$work/reward.sh" "$work/$1"
    cd "$work/$1"
    echo 0 >pause
    : >events
    cat >"$1.toml" <<SPEC
name = "$1"
env = { kind = "hypergrid", dim = 2, side = 5 }
reward = { kind = "command", command = ["bash", "reward.sh"], enumerate = true }
model = { kind = "mlp", hidden = 8 }
objective = { kind = "tb" }
train = { trajectories = 3200, batch = 16 }
eval = { every = 100, samples = 20, metrics = ["distribution", "log_z"] }
checkpoint = { every = 1_000_000 }
[sweep]
$2
SPEC
    "$gfn" sweep plan "$1.toml" >plan.log 2>&1 || fail "$(cat plan.log)"
}
# submit SWEEP OPTIONS...: the number of the job.
submit() {
    local said
    said=$("$gfn" sweep submit --engine slurm "$@" 2>&1) || fail "$said"
    [[ $said =~ ^Submitted\ batch\ job\ ([0-9]+)$ ]] || fail "$said"
    echo "${BASH_REMATCH[1]}"
}
# The tasks of arrays that are not over.
queued() { squeue --noheader --array --jobs="$1" --states=PD,R,CG,CF -o '%K %T' 2>/dev/null; }
over() { [ -z "$(queued "$1")" ]; }
field() { scontrol show job "$1" --oneliner | tr ' ' '\n' | sed -n "s/^$2=//p" | head -n 1; }
requeued() { [[ $(field "$1" Restarts) =~ ^[1-9] ]]; }
# Rewards that have been started here.
started() { [ "$(grep -c ' +1 ' events)" -ge "$1" ]; }
# counts NAME: `8 done`, without the states that nobody is in.
counts() {
    "$gfn" sweep status "results/$1" --json | python3 -c '
import json, sys
counts = json.load(sys.stdin)["counts"]
print(", ".join(f"{n} {state}" for state, n in counts.items() if n))'
}
# went_on RUN: some stretches, each from where the one before was asked to stop.
went_on() {
    python3 -c '
import json, sys
sessions = json.load(open(sys.argv[1] + "/manifest.json"))["sessions"]
starts, ends, codes = ([s[key] for s in sessions] for key in ("from_step", "to_step", "exit"))
saved = 0 < ends[0] < 200 and starts == [0, *ends[:-1]]
if not (saved and ends[-1] == 200 and codes == [75] * (len(codes) - 1) + [0]):
    sys.exit(f"not ok: {sys.argv[1]}: {starts} to {ends}, exit codes {codes}")' "$1"
}
# like_alone NAME RUN KEY=VALUE: the same rows as the trial trained by itself, but for clocks and name.
like_alone() {
    local seed=${2##*/s}
    echo 0 >pause
    local alone=alone/$3/s$seed said
    said=$("$gfn" train "$1.toml" -s "$3" --seed "$seed" --name "$3" -q --out alone 2>&1) || fail "$said"
    for run in "results/$1/$2" "$alone"; do
        python3 -c '
import csv, sys
for row in csv.DictReader(open(sys.argv[1] + "/metrics.csv", newline="")):
    print(*(f"{k}={v}" for k, v in row.items() if k not in ("wall_s", "train_s", "name")), sep=",")' "$run"
    done >rows
    equal "$(wc -l <rows)" 6 "rows of two runs"
    cmp <(head -n 3 rows) <(tail -n 3 rows) || fail "$1/$2 is not what it is alone"
    cmp "results/$1/$2/samples.csv" "$alone/samples.csv" || fail "samples of $1/$2"
}

# --- what is checked

# A time limit, submitted first since Slurm counts in minutes; it warns up to half a minute too early.
spec limit 'train.lr = [1e-3]
seed = [1]'
echo 1 >pause
limit=$(submit results/limit --time 1 -- --nodelist=n1 --signal=B:USR1@20 --job-name=limited)
# Of an option that is given twice the last one counts, which Slurm shows of this one.
equal "$(field "$limit" JobName)" limited "an option after --"

spec many 'train.lr = [1e-3, 2e-3, 3e-3, 4e-3]
seed = [1, 2]'
echo 0.005 >pause
many=$(submit many.toml --parallel 2)
until_true 60 "eight trials" over "$many"
equal "$(counts many)" "8 done" "status"
equal "$(find results/many -name DONE | wc -l)" 8 "DONE files"
most=$(sort -n events | awk '{ n += $2; if (n > most) most = n } END { print most, n }')
equal "$most" "2 0" "most trials at a time, and left"
like_alone many train.lr=0.002/s2 train.lr=0.002
ok "an array of eight trials, never more than two at a time, as they are alone"

equal "$("$gfn" sweep submit results/many --engine slurm 2>&1)" "nothing is left to do" "submitting again"
equal "$(squeue --noheader --states=all --format %F | sort -u | wc -l)" 2 "arrays"
ok "nothing is submitted where nothing is missing"

# One of four has a reward that fails until there is a file.
spec fail 'which = [{ train.lr = 1e-3 }, { train.lr = 2e-3 }, { reward.command = ["bash", "reward.sh", "mended"] }, { train.lr = 4e-3 }]
seed = [1]'
fail=$(submit results/fail)
until_true 60 "four trials" over "$fail"
equal "$(counts fail)" "3 done, 1 failed" "status"
equal "$(field "${fail}_2" ExitCode) $(field "${fail}_2" JobState)" "5:0 FAILED" "the failed task"
equal "$(field "${fail}_1" ExitCode) $(field "${fail}_1" JobState)" "0:0 COMPLETED" "another task"
equal "$(field "${fail}_2" Restarts)" 0 "restarts of a failed task"
touch mended
equal "$("$gfn" sweep submit results/fail --engine slurm --print | grep -c -- '--array=2$')" 1 "the array"
again=$(submit results/fail)
equal "$(squeue --noheader --array --states=all --jobs="$again" -o %K)" 2 "tasks of the second array"
until_true 60 "the mended trial" over "$again"
equal "$(counts fail)" "4 done" "status"
ok "a trial that fails stops nobody else; mended, it alone is submitted again"

# Submitted twice: whoever comes second waits, and finds it done.
spec twice 'train.lr = [1e-3, 2e-3]
seed = [1]'
echo 0.02 >pause
first=$(submit results/twice)
until_true 30 "two trials" started 2
second=$(submit results/twice)
until_true 60 "both arrays" over "$first,$second"
equal "$(counts twice)" "2 done" "status"
equal "$(grep -c ' +1 ' events)" 2 "times that a trial was started"
equal "$(field "${second}_0" ExitCode)" "0:0" "the second of two tasks"
ok "submitted twice, a trial is run once"

# Requeued by hand.
spec requeue 'train.lr = [1e-3, 2e-3]
seed = [1]'
echo 0.1 >pause
requeue=$(submit results/requeue)
until_true 30 "two trials" started 2
sleep 2
scontrol requeue "${requeue}_0"
until_true 20 "the requeue" requeued "${requeue}_0"
echo 0 >pause
until_true 60 "two trials" over "$requeue"
equal "$(counts requeue)" "2 done" "status"
equal "$(field "${requeue}_0" Restarts) $(field "${requeue}_1" Restarts)" "1 0" "restarts"
went_on results/requeue/train.lr=0.001/s1
like_alone requeue train.lr=0.001/s1 train.lr=0.001
ok "a requeued trial goes on where it was, and ends as it does alone"

# Cancelled: saved, and not back in the queue until it is submitted again.
spec cancel 'train.lr = [1e-3, 2e-3, 3e-3]
seed = [1]'
echo 0.1 >pause
cancel=$(submit results/cancel --parallel 2)
until_true 30 "two trials" started 2
sleep 2
scancel "$cancel"
until_true 20 "the end of a cancelled array" over "$cancel"
sleep 3
over "$cancel" || fail "cancelled tasks came back: $(queued "$cancel")"
equal "$(counts cancel)" "2 interrupted, 1 waiting" "status"
echo 0 >pause
again=$(submit results/cancel)
until_true 60 "three trials" over "$again"
equal "$(counts cancel)" "3 done" "status"
for lr in 0.001 0.002; do
    went_on results/cancel/train.lr=$lr/s1
    like_alone cancel train.lr=$lr/s1 train.lr=$lr
done
ok "a cancelled array stays cancelled and loses nothing"

# Pre-empted by a job that wants all of its node.
spec preempt 'train.lr = [1e-3]
seed = [1]'
echo 0.1 >pause
preempt=$(submit results/preempt --partition low -- --nodelist=n2)
until_true 30 "a trial" started 1
sleep 2
sbatch --quiet --partition=high --nodelist=n2 --exclusive --output=/dev/null --wrap='sleep 1'
until_true 20 "pre-emption" requeued "${preempt}_0"
echo 0 >pause
until_true 60 "the pre-empted trial" over "$preempt"
went_on results/preempt/train.lr=0.001/s1
like_alone preempt train.lr=0.001/s1 train.lr=0.001
ok "a pre-empted trial goes on"

# Two rungs, a submission each: four trials to 800 trajectories, the better half to 1600.
spec halving 'train.lr = [1e-5, 1e-3, 1e-2, 1e-1]
seed = [1]
[sweep.halving]
eta = 2
first_trajectories = 1600
metric = "tv_exact"'
for expected in 0-3 two none; do
    array=$("$gfn" sweep submit results/halving --engine slurm --print 2>&1 |
        sed -n 's/^#SBATCH --array=//p')
    case $expected in
        0-3) equal "$array" 0-3 "the first rung" ;;
        two) [[ $array =~ ^[0-3][,-][0-3]$ ]] || fail "the second rung: $array" ;;
        none) equal "$array" "" "after the last rung" && break ;;
    esac
    halving=$(submit results/halving)
    until_true 60 "a rung" over "$halving"
done
equal "$(counts halving)" "4 done" "status"
equal "$(cat results/halving/train.lr=*/s1/DONE | grep -c '"trajectories": 3200')" 2 "trials of the last rung"
ok "halving, a rung per submission"

# By now Slurm has warned, or is about to.
cd "$work/limit"
limited=results/limit/train.lr=0.001/s1
until_true 60 "the warning" requeued "${limit}_0"
echo 0 >pause
until_true 60 "the trial with a time limit" over "$limit"
equal "$(counts limit)" "1 done" "status"
went_on $limited
like_alone limit train.lr=0.001/s1 train.lr=0.001
ok "warned of its time limit, a trial saves, goes back into the queue and on"
