# What the job scripts of this folder have in common; they source it.

PAUSES=${REQUEUE_PAUSES-1 4 15 40 60}  # seconds between attempts to reach SLURM's controller
# For every srun: since SLURM 22.05 it does not take the cores of a task from sbatch, and each task may get a single one.
CORES=${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}

say() { echo "$(date --iso-8601=seconds) job ${SLURM_JOB_ID:-?}, start ${SLURM_RESTART_COUNT:-0}: $*"; }

# Print what explains a difference between two runs.
environment() {
    say "nodes ${SLURM_JOB_NODELIST:-none}, ${SLURM_NTASKS:-1} tasks, on $(hostname)"
    ${PL_DISTILL_CONTAINER:-} "${PL_DISTILL:-pl-distill}" --version || say "no version: pl-distill does not start here"
    nvidia-smi --query-gpu=index,name,driver_version,memory.total --format=csv,noheader 2> /dev/null || echo "no GPU"
    env | grep -E '^(SLURM_(JOB|NTASKS|NODEID|RESTART|ARRAY)|CUDA_|NCCL_|GLOO_|OMP_|MASTER_|DS_|TORCH_)' | sort
}

# Refuse an array with gaps: from its number alone no job of one could tell which share is its own.
whole_array() {
    if ((${SLURM_ARRAY_TASK_MAX:-0} - ${SLURM_ARRAY_TASK_MIN:-0} + 1 == ${SLURM_ARRAY_TASK_COUNT:-1})); then return; fi
    say "the numbers of the array have gaps. Give consecutive ones, such as --array=0-1: any number of jobs finishes what is missing"
    exit 1
}

# Where the ranks meet: this script runs on the job's first node, where rank 0 is, so its own address needs no look-up.
rendezvous() {
    local address
    address=$(scontrol show node "$SLURMD_NODENAME" 2> /dev/null | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p') || true
    case $address in
        *[!0-9.]* | '') address=$(hostname -I | awk '{print $1}') ;;  # SLURM knows a name only
    esac
    export MASTER_ADDR=${MASTER_ADDR:-$address}
    export MASTER_PORT=${MASTER_PORT:-$(free_port "$MASTER_ADDR")}
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
    say "rendezvous at $MASTER_ADDR:$MASTER_PORT"
}

# Print a port where nobody listens, below those that the kernel gives away: free_port ADDRESS
# Drawn anew for each start. Computed from the job's number it was the same for two jobs of that number, of two clusters
# on one machine: a rank of one joined the other's, whose own was left to wait without a word.
free_port() {
    local port
    while port=$((15000 + RANDOM % 17000)); do
        if ! (: < "/dev/tcp/$1/$port") 2> /dev/null; then echo "$port"; return; fi
    done
}

# Find what starts a program with SIGUSR1 and SIGTERM blocked; its words are in BLOCKING.
# env can do it since coreutils 8.31, which Enterprise Linux 8 does not have. Python would hand on that it ignores SIGPIPE.
block_signals() {
    local python code='import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM});'
    code+=' signal.signal(signal.SIGPIPE, signal.SIG_DFL); signal.signal(signal.SIGXFSZ, signal.SIG_DFL);'
    code+=' os.execvp(sys.argv[1], sys.argv[1:])'
    BLOCKING=(env --block-signal=USR1 --block-signal=TERM)
    if "${BLOCKING[@]}" true 2> /dev/null; then return; fi
    for python in python3 /usr/libexec/platform-python; do
        BLOCKING=("$python" -I -S -c "$code")
        if "${BLOCKING[@]}" true 2> /dev/null; then return; fi
    done
    BLOCKING=(env)
    say "signals cannot be blocked: no env of coreutils 8.31, no python3. One that comes while pl-distill starts kills it"
}

# Take a signal to the script: hear SIGNAL
# `step` is the process of a step that saves, if any; srun passes USR1 on to its tasks, but TERM makes it kill them.
# After its time limit SLURM kills this script with its tasks, which block SIGTERM: who waits for them asks too late.
hear() {
    asked=$1 interrupted=yes
    if [ -n "${step:-}" ]; then kill -s USR1 "$step" 2> /dev/null; fi
    if [ "$1" = TERM ]; then requeue "asked by SIGTERM" ENDING; fi
}

# Wait for a step and decide what becomes of the job: finish_with PID
# 75: it saved and asks to be started again. Above 128: a task was killed (its node, its memory, a colleague's mistake);
# the run goes on from its last checkpoint, MAX_CRASHES times in all. Anything else is an error that would come back.
finish_with() {
    local code=127 interrupted=yes now
    trap 'hear USR1' USR1
    trap 'hear TERM' TERM
    if [ -n "$asked" ]; then hear "$asked"; fi
    while [ -n "$interrupted" ]; do  # a trapped signal ends `wait`, not the step
        interrupted=
        wait "$1"; now=$?
        case $now in
            127) ;;  # bash has told the code already
            -1) code=143 ;;  # bash 5.2 has lost the code of a step that ended as a signal came
            *) code=$now ;;
        esac
    done
    # Of a step whose node is lost srun may say 0 (22.05 does): only the run itself knows that it has not ended.
    if [ "$code" -eq 0 ] && [ -e "$run/run_state.json" ] && ! grep -q '"state": "done"' "$run/run_state.json"; then
        code=143
    fi
    if [ "$code" -gt 128 ] && saved_in_this_start; then code=75; fi
    case $code in
        0) say "done" ;;
        75) requeue "saved after a signal" ;;
        *)
            if [ "$code" -gt 128 ] && [ -n "$asked" ]; then
                requeue "asked by SIG$asked and killed before it had saved; goes on from the last checkpoint"
            elif [ "$code" -gt 128 ]; then
                say "a task was killed (exit code $code)" | tee -a "$run/crashes.log"
                if [ "$(wc -l < "$run/crashes.log")" -le "${MAX_CRASHES:-3}" ]; then
                    requeue "goes on from the last checkpoint"
                else
                    say "not started again: $run/crashes.log counts more than ${MAX_CRASHES:-3} crashes"
                fi
            fi
            ;;
    esac
    exit "$code"
}

# Whether the run has saved and asks to be started again, though srun tells that a rank was killed: one that leaves later
# than KillWait after the first, whose 75 srun takes for a bad exit.
saved_in_this_start() {
    local state="$run/run_state.json"
    grep -qs '"state": "requeued"' "$state" && grep -qs "\"job_id\": \"$SLURM_JOB_ID\"" "$state" || return
    if [ "${SLURM_RESTART_COUNT:-0}" -eq 0 ]; then ! grep -q '"restart_count"' "$state"; return; fi
    grep -q "\"restart_count\": \"$SLURM_RESTART_COUNT\"" "$state"
}

# Ask SLURM for another start, unless somebody has cancelled the job or SLURM requeues it by itself: requeue WHY [ENDING]
# A job that ends is COMPLETING whatever ends it: only the reason tells its time limit from `scancel`, and only the date
# of a preemption tells PreemptMode=CANCEL. With ENDING only a job that is ended for one of them is asked for.
requeue() {
    local job=$SLURM_JOB_ID told='' state pause
    # One job of an array has the array's own number, by which SLURM would understand all of them.
    if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
    for pause in $PAUSES; do  # a controller that is busy, or fails over, does not answer for a while
        told=$(scontrol show job --oneliner "$job" 2> /dev/null | head -n 1)
        if [ -n "$told" ]; then break; fi
        sleep "$pause"
    done
    state=$(sed -n 's/.*JobState=\([A-Z_]*\) Reason=\([A-Za-z_]*\).*/\1 \2/p' <<< "$told")
    case $told in *\ PreemptTime=[0-9]*) state+=" preempted" ;; esac
    case $state in
        COMPLETING\ TimeLimit* | COMPLETING\ *\ preempted | TIMEOUT\ * | PREEMPTED\ *) ;;
        RUNNING\ *) if [ -n "${2:-}" ]; then return; fi ;;
        *) if [ -z "${2:-}" ]; then say "$1; no requeue, the job is $state"; fi; return ;;
    esac
    say "$1; asking for a requeue"
    for pause in $PAUSES; do
        if scontrol requeue "$job"; then sleep 60; return; fi  # SLURM ends this script
        sleep "$pause"
    done
}
