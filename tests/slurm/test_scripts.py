"""The job scripts without a SLURM: syntax, what their README names, and what becomes of a job by its exit code."""

import functools
import os
import re
import shlex
import signal
import socket
import subprocess
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from datamodules.files import write_json
from datamodules.splits import format_day, load_split
from pl_distill.cli import main
from pl_distill.commands import evaluate
from pl_distill.commands.lightning import RecipeCLI, run_lightning
from pl_distill.commands.parsing import find_recipe

FOLDER = Path(__file__).resolve().parents[2] / "slurm"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
ARCHIVE = (FOLDER.parent / "docs/whole-archive.md").read_text(encoding="utf-8")
ANNOTATED = [f"2019_{day}" for day in ("11_05", "11_11", "11_15", "11_22", "11_28", "12_02", "12_10")]
SCRIPTS = sorted([*FOLDER.glob("*.sbatch"), *FOLDER.glob("*.sh")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_valid_bash_and_in_the_readme(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert f"`{script.name}`" in README


def commands(text, *scripts):
    """The lines of a page that submit a job."""
    return [line for line in text.splitlines() if re.match(rf"sbatch .*slurm/({'|'.join(scripts)})\.sbatch ", line)]


@pytest.mark.parametrize("line", commands(README + ARCHIVE, "smoke", "cache", "train", "evaluate"))
def test_a_command_names_what_exists(line):
    words = shlex.split(line)
    assert (FOLDER.parent / next(word for word in words if word.endswith(".sbatch"))).is_file()
    for number, word in enumerate(words):
        if word == "--config":
            assert Path(find_recipe(words[number + 1])).is_file()


def parsed(line, verb, monkeypatch):
    """The configuration that `pl-distill` reads from a job's words; an option that there is not is an error."""
    words, read = shlex.split(line), []
    with monkeypatch.context() as patch:
        patch.setattr(RecipeCLI, "_run_subcommand", lambda cli, *_: read.append(cli.config[verb]))
        patch.setattr(RecipeCLI, "instantiate_trainer", lambda *_: None)  # one for GPUs refuses without one
        run_lightning([verb, *words[words.index("--config") :]])
    return read[0]


RECIPE = yaml.safe_load(Path(find_recipe("distill/edinburgh.yaml")).read_text(encoding="utf-8"))


def gpus(line):
    """GPUs of all nodes of a job."""
    nodes, on_each = (int(re.search(rf"--{option}=(\d+)", line)[1]) for option in ("nodes", "gpus-per-node"))
    return nodes * on_each


def check_rate(config, gpus):
    """Compare a learning rate with the recipe's times the root of the number of GPUs."""
    rate = RECIPE["model"]["init_args"]["optimizer"]["init_args"]["lr"] * gpus**0.5
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize("line", commands(README, "smoke", "train"))
def test_a_fit_of_the_readme_trains_as_long_as_the_recipe_does_on_one_gpu(line, monkeypatch):
    config = parsed(line, "fit", monkeypatch)
    assert config["trainer"]["max_steps"] * gpus(line) == RECIPE["trainer"]["max_steps"]
    check_rate(config, gpus(line))


def test_a_fit_of_the_whole_archive_validates_on_a_part_of_it(monkeypatch):
    (line,) = commands(ARCHIVE, "train")
    config = parsed(line, "fit", monkeypatch)
    assert isinstance(config["trainer"]["limit_val_batches"], int)
    check_rate(config, gpus(line))


@pytest.mark.parametrize(("page", "codec"), [(README, "float16"), (ARCHIVE, "int8")])
def test_a_cache_of_the_pages_can_be_asked_for(page, codec, monkeypatch):
    (line,) = commands(page, "cache")
    assert parsed(line, "predict", monkeypatch)["data"]["init_args"]["codec"] == codec


def test_an_evaluation_of_the_readme_can_be_asked_for(monkeypatch):
    (line,) = commands(README, "evaluate")
    _, folder, *words = shlex.split(line[line.index("slurm/evaluate.sbatch") :])
    asked = []
    stub = functools.wraps(evaluate.evaluate)(lambda *_, **options: asked.append(options))
    monkeypatch.setattr(evaluate, "evaluate", stub)
    assert main(["evaluate", *words, f"--out={folder}", "--task=0", "--tasks=4"]) == 0  # as the script adds
    assert asked[0]["tasks"] == 4


def test_the_split_of_the_whole_archive_tests_on_no_day_that_is_learned_from(tmp_path):
    file = tmp_path / "archive.yaml"
    file.write_text(re.search(r"```yaml\n(.*?)```", ARCHIVE, re.DOTALL)[1])
    split, shipped = load_split(file), load_split("edinburgh")
    days = [format_day(date(2019, 11, 5) + timedelta(days=number)) for number in range(37)]
    assert days[-1] == "2019_12_11"
    assert {split.part_of(day) for day in days} == {"train", "val", "test"}
    for day in ANNOTATED:
        assert split.part_of(day) == shipped.part_of(day)


def test_without_a_folder_a_script_says_how_it_is_called():
    for script in FOLDER.glob("*.sbatch"):
        ran = subprocess.run(["bash", script], capture_output=True, text=True, env={**os.environ, "SLURM_JOB_ID": "1"})
        assert ran.returncode != 0
        assert re.search(r"_FOLDER is missing: sbatch .*slurm/" + script.name, ran.stderr)


def finish(tmp_path, step, state="RUNNING", crashes=0, reason="None", preempted="None", silent=0, **more):
    """Run `finish_with` over a step, with a scontrol that writes down what it is asked for; `more` is environment.

    It gives no answer the first `silent` times that it is asked for the job's state, and refuses every requeue.
    """
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir(exist_ok=True)
    scontrol.write_text(
        f'#!/bin/bash\nif [ "$1" = show ]; then echo "${{@: -1}}" >> {tmp_path}/shown\n'
        f"if [ $(wc -l < {tmp_path}/shown) -le {silent} ]; then exit 1; fi\n"
        f'echo "JobId=7 JobState={state} Reason={reason} PreemptTime={preempted}"; exit; fi\n'
        f'echo "$@" >> {tmp_path}/asked\nexit 1\n'
    )
    scontrol.chmod(0o755)
    (tmp_path / "crashes.log").write_text("killed\n" * crashes)
    code = f"run={tmp_path}; asked=; source {FOLDER}/job.sh; trap 'asked=TERM' TERM; {step} & finish_with $!"
    environment = {"PATH": f"{scontrol.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "REQUEUE_PAUSES": "0"}
    environment = {**os.environ, **environment, **more}
    ran = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=environment, timeout=30)
    asked = tmp_path / "asked"
    return ran.returncode, asked.read_text().split() if asked.exists() else [], ran.stdout


@pytest.mark.parametrize(
    ("code", "requeued"), [(0, False), (1, False), (2, False), (75, True), (137, True), (139, True), (142, True)]
)
def test_saved_and_killed_jobs_are_requeued_and_no_others(code, requeued, tmp_path):
    found, asked, _ = finish(tmp_path, f"(exit {code})")
    assert found == code
    assert asked == (["requeue", "7"] if requeued else [])


def test_of_an_array_one_job_alone_is_asked_for(tmp_path):
    _, asked, _ = finish(tmp_path, "(exit 75)", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="3")
    assert asked == ["requeue", "7_3"]
    assert (tmp_path / "shown").read_text().split() == ["7_3"]


def test_a_controller_that_is_busy_is_asked_again(tmp_path):
    _, asked, said = finish(tmp_path, "(exit 75)", silent=2, REQUEUE_PAUSES="0 0 0")
    assert len((tmp_path / "shown").read_text().split()) == 3
    assert asked == ["requeue", "7"] * 3
    assert "asking for a requeue" in said


@pytest.mark.parametrize(
    ("saved", "start", "crash"),
    [
        ({"job_id": "7"}, {}, False),
        ({"job_id": "7", "restart_count": "2"}, {"SLURM_RESTART_COUNT": "2"}, False),
        ({"job_id": "7", "restart_count": "1"}, {"SLURM_RESTART_COUNT": "2"}, True),  # in the start before
        ({"job_id": "6"}, {}, True),
    ],
)
def test_a_rank_that_is_killed_while_it_leaves_a_saved_run_is_no_crash(saved, start, crash, tmp_path):
    write_json(tmp_path / "run_state.json", {"schema": 1, "state": "requeued", "slurm": saved})
    found, asked, said = finish(tmp_path, "(exit 137)", **start)
    assert (found, asked) == (137 if crash else 75, ["requeue", "7"])
    assert ("a task was killed" in said) == crash


def test_a_smoke_in_the_folder_of_another_is_refused(tmp_path):
    (tmp_path / "run_state.json").touch()
    words = ["bash", FOLDER / "smoke.sbatch", tmp_path]
    ran = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "SLURM_JOB_ID": "1"})
    assert ran.returncode == 1
    assert "run_state.json is there already" in ran.stderr


@pytest.mark.parametrize(("state", "requeued"), [("running", True), ("requeued", True), ("done", False)])
def test_a_step_that_ends_well_while_its_run_has_not_was_on_a_lost_node(state, requeued, tmp_path):
    write_json(tmp_path / "run_state.json", {"schema": 1, "state": state})
    found, asked, _ = finish(tmp_path, "(exit 0)")
    assert found == (143 if requeued else 0)
    assert asked == (["requeue", "7"] if requeued else [])


@pytest.mark.parametrize("state", ["CANCELLED", "PENDING", ""])
def test_a_job_that_was_cancelled_or_is_requeued_already_is_left_alone(state, tmp_path):
    _, asked, said = finish(tmp_path, "(exit 75)", state)
    assert asked == []
    assert "no requeue" in said


def test_a_job_that_keeps_being_killed_is_given_up(tmp_path):
    _, asked, _ = finish(tmp_path, "(exit 137)", crashes=2)
    assert asked == ["requeue", "7"]
    (tmp_path / "asked").unlink()
    _, asked, said = finish(tmp_path, "(exit 137)", crashes=3)
    assert asked == []
    assert "counts more than 3 crashes" in said


def test_a_preemption_that_gave_no_time_to_save_is_no_crash(tmp_path):
    _, asked, said = finish(tmp_path, "asked=TERM; (exit 137)", crashes=3)
    assert asked == ["requeue", "7"]
    assert "asked by SIGTERM and killed before it had saved" in said
    assert (tmp_path / "crashes.log").read_text() == "killed\n" * 3


@pytest.mark.parametrize(
    ("told", "events"),
    [
        ({"state": "COMPLETING", "reason": "TimeLimit"}, "requeue 7 ended requeue 7"),  # it was refused the first time
        ({"state": "COMPLETING", "preempted": "2026-01-21T12:00:00"}, "requeue 7 ended requeue 7"),
        ({"state": "COMPLETING"}, "ended"),  # scancel
        ({"state": "RUNNING", "preempted": "2026-01-21T12:00:00"}, "ended requeue 7"),  # GraceTime: the step may save
    ],
)
def test_a_job_that_is_ended_for_its_time_asks_before_it_is_killed_with_its_step(told, events, tmp_path):
    until = f"for _ in {{1..100}}; do [ -s {tmp_path}/shown ] && break; sleep 0.1; done"
    then = f"for _ in {{1..10}}; do [ -s {tmp_path}/asked ] && break; sleep 0.1; done"
    step = f"(kill -TERM $$; {until}; {then}; echo ended >> {tmp_path}/asked; exit 143)"
    _, asked, _ = finish(tmp_path, step, **told)
    assert asked == events.split()


def test_a_signal_to_the_script_does_not_hide_the_exit_code_of_the_step(tmp_path):
    step = "(sleep 0.2; kill -USR1 $$; sleep 0.2; kill -USR1 $$; sleep 0.3; exit 75)"
    found, asked, _ = finish(tmp_path, step)
    assert found == 75
    assert asked == ["requeue", "7"]


def bash(code, **more):
    """What a line of bash prints that knows job.sh."""
    environment = {**os.environ, "SLURM_JOB_ID": "2", "SLURMD_NODENAME": "n1", **more}
    words = ["bash", "-c", f"source {FOLDER}/job.sh; {code}"]
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=30, check=True).stdout.strip()


MEET = "rendezvous > /dev/null; echo $MASTER_ADDR $MASTER_PORT"


def test_two_jobs_of_one_number_do_not_meet():
    ports = {int(bash(MEET).split()[1]) for _ in range(3)}
    assert len(ports) > 1, "the same for each job of this number: their ranks would mix"
    assert all(15000 <= port < 32768 for port in ports)


def test_a_port_in_use_is_left_alone():
    draw = "RANDOM=1; free_port 127.0.0.1"
    port = int(bash(draw))
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        busy.bind(("0.0.0.0", port))
        busy.listen()
        assert int(bash(draw)) != port


def test_who_knows_better_names_the_place():
    assert bash(MEET, MASTER_ADDR="10.0.0.9", MASTER_PORT="29500") == "10.0.0.9 29500"


def launch(tmp_path, script, srun, restarts=0, path=os.environ["PATH"], **more):
    """Run a job script with a srun and a scontrol that answers that the job runs; `more` is environment."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    scontrol = 'if [ "$1 $2" = "show job" ]; then echo "JobId=7 JobState=RUNNING Reason=None"; else exit 1; fi'
    for name, code in {"srun": srun, "scontrol": scontrol}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{code}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{path}",
        "PL_DISTILL": "echo",
        "REQUEUE_PAUSES": "0",
        "PL_DISTILL_SLURM_DIR": str(FOLDER),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_RESTART_COUNT": str(restarts),
        "SLURMD_NODENAME": "n1",
        **more,
    }
    words = ["bash", str(FOLDER / script), str(tmp_path / "run")]
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=30)


def start(tmp_path, restarts, signalled=False):
    """Run train.sbatch with a srun that writes down what it is to run, and may signal the script; code and steps."""
    steps = tmp_path / "steps"
    steps.unlink(missing_ok=True)
    kill = '[ "${@: -1}" = true ] && kill -USR1 $PPID' if signalled else ":"
    ran = launch(tmp_path, "train.sbatch", f'echo "$@" >> {steps}\n{kill}\nexit 0', restarts)
    return ran.returncode, steps.read_text().splitlines()


@pytest.mark.parametrize("name", ["USR1", "TERM"])
@pytest.mark.parametrize("script", ["cache.sbatch", "evaluate.sbatch"])
def test_a_preempted_job_of_an_array_has_not_crashed(script, name, tmp_path):
    ran = launch(tmp_path, script, f"kill -{name} $PPID; exit 143")
    assert ran.returncode == 143
    assert f"asked by SIG{name} and killed" in ran.stdout
    assert not list(tmp_path.rglob("crashes.log"))


@pytest.mark.parametrize(("numbers", "is_whole"), [("0-3", True), ("4-5", True), ("5,17", False), ("0-4:2", False)])
@pytest.mark.parametrize("script", ["cache.sbatch", "evaluate.sbatch"])
def test_an_array_with_gaps_is_refused(script, numbers, is_whole, tmp_path):
    """Its jobs would take themselves for others, and nobody would do the last shares."""
    first, last, count = {"0-3": (0, 3, 4), "4-5": (4, 5, 2), "5,17": (5, 17, 2), "0-4:2": (0, 4, 3)}[numbers]
    array = {"TASK_ID": last, "TASK_MIN": first, "TASK_MAX": last, "TASK_COUNT": count, "JOB_ID": 7}
    asked = {f"SLURM_ARRAY_{name}": str(value) for name, value in array.items()}
    ran = launch(tmp_path, script, f'echo "$@" > {tmp_path / "asked"}', **asked)
    assert (ran.returncode == 0) is is_whole
    assert (tmp_path / "asked").exists() is is_whole
    assert ("Give consecutive ones, such as --array=0-1" in ran.stdout) is not is_whole


def test_neighbouring_starts_train_in_steps_of_other_numbers(tmp_path):
    """A kill of the last start's step that SLURM repeats later does not find one of its number."""
    for restarts in range(4):
        code, steps = start(tmp_path, restarts)
        assert code == 0
        assert len(steps) == 1 + restarts % 2
        assert " fit " in steps[-1]


def test_a_signal_before_training_began_is_not_lost(tmp_path):
    code, steps = start(tmp_path, 1, signalled=True)
    assert code == 75
    assert steps == ["--nodes=1 --ntasks=1 true"]


@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("*.sbatch")))
def test_every_step_has_the_cores_that_the_job_asked_for(script, tmp_path):
    """Since SLURM 22.05 srun does not take them from sbatch: each task would get one."""
    steps = tmp_path / "steps"
    srun = f"echo \"${{*//$'\\n'/ }}\" >> {steps}"  # a line for each
    launch(tmp_path, script, srun, restarts=1, SLURM_CPUS_PER_TASK="8")
    assert all("--cpus-per-task=8 " in step for step in steps.read_text().splitlines())
    steps.unlink()
    launch(tmp_path, script, srun, restarts=1)
    assert "--cpus-per-task" not in steps.read_text()


# A srun that does what it is told, on this machine; a fit leaves the state of a run that has ended.
RUNS = r"""
while [[ $1 == -* ]]; do shift; done
here=${0%/bin/srun}
if [[ " $* " == *" fit "* ]]; then
    echo "$*" >> "$here/fits"
    sed 's/.*max_steps=\([0-9]*\).*/{"step": \1}/' <<< "$*" > "$here/run/run_state.json"
else
    exec "$@"
fi
"""


def smoke(tmp_path, **more):
    """Run smoke.sbatch; what came of it, and the words of its fits."""
    ran = launch(tmp_path, "smoke.sbatch", RUNS, **more)
    fits = tmp_path / "fits"
    return ran, fits.read_text().splitlines() if fits.exists() else []


def program(path, code):
    """Write a script that can be called."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{code}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("code", ['echo "inside: $*"', "exit 127"])
def test_a_smoke_in_a_container_needs_no_pl_distill_outside(code, tmp_path):
    container = program(tmp_path / "container", code)
    more = {"path": "/usr/bin:/bin", "PL_DISTILL": "pl-distill", "PL_DISTILL_CONTAINER": f"{container} exec"}
    ran, fits = smoke(tmp_path, **more)
    assert "smoke: all is well" in ran.stdout, ran.stderr
    assert ("inside: exec pl-distill --version" in ran.stdout) == ("echo" in code)
    assert len(fits) == 2
    assert all(f"{container} exec pl-distill fit" in words for words in fits)


def test_a_smoke_says_how_many_cores_each_task_has(tmp_path):
    cores = len(os.sched_getaffinity(0))
    ran, _ = smoke(tmp_path, SLURM_CPUS_PER_TASK=str(cores), OMP_NUM_THREADS="1")
    assert f" has {cores} cores, {cores} asked for" in ran.stdout
    assert "smoke: all is well" in ran.stdout


def test_a_smoke_whose_tasks_have_fewer_cores_than_asked_for_fails(tmp_path):
    ran, fits = smoke(tmp_path, SLURM_CPUS_PER_TASK="100000")
    assert ran.returncode == 1
    assert "fewer cores than --cpus-per-task" in ran.stdout
    assert fits == []


OLD_ENV = """case $1 in --block-signal*) echo "env: unrecognized option '$1'" >&2; exit 125 ;; esac
exec /usr/bin/env "$@"
"""  # coreutils before 8.31, such as Enterprise Linux 8 has
BLOCKED = 1 << (signal.SIGUSR1 - 1) | 1 << (signal.SIGTERM - 1)


@pytest.mark.parametrize("old", [False, True])
def test_a_step_begins_with_its_signals_blocked_also_where_env_is_old(old, tmp_path):
    if old:
        program(tmp_path / "bin" / "env", OLD_ENV)
    code = 'block_signals; "${BLOCKING[@]}" grep -E "Sig(Blk|Ign)" /proc/self/status'
    said = bash(code, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    masks = {name: int(mask, 16) for name, mask in (line.split(":") for line in said.splitlines())}
    assert masks["SigBlk"] & BLOCKED == BLOCKED
    assert masks["SigIgn"] & 1 << (signal.SIGPIPE - 1) == 0, "Python's own handling of SIGPIPE would be inherited"


@pytest.mark.parametrize("script", ["train.sbatch", "smoke.sbatch"])
def test_an_old_env_is_found_out_before_a_fit_begins(script, tmp_path):
    program(tmp_path / "bin" / "env", OLD_ENV)
    ran = launch(tmp_path, script, RUNS)
    fits = (tmp_path / "fits").read_text().splitlines()
    assert all("--block-signal" not in words and "pthread_sigmask" in words for words in fits)
    assert "cannot be blocked" not in ran.stdout


def test_a_cache_job_does_not_end_where_its_end_is_announced(tmp_path):
    """Its tasks have nothing to save, and would die of a signal that nobody handles."""
    ran = launch(tmp_path, "cache.sbatch", f'echo "$@" > {tmp_path / "asked"}')
    assert ran.returncode == 0
    assert "env --block-signal=USR1 --block-signal=TERM" in (tmp_path / "asked").read_text()


@pytest.mark.skipif(Path("/usr/libexec/platform-python").exists(), reason="this system has one more Python")
def test_where_nothing_can_block_signals_the_log_says_so(tmp_path):
    program(tmp_path / "bin" / "env", OLD_ENV)
    program(tmp_path / "bin" / "python3", "exit 127")
    code = 'block_signals; "${BLOCKING[@]}" echo it runs'
    said = bash(code, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert "cannot be blocked" in said
    assert said.endswith("it runs")
