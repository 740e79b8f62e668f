"""Several evaluations in several processes: each streams its share of every evaluation's clips."""

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from tqdm import tqdm

from datamodules.processes import die_with_parent
from pl_distill.evaluation.evaluate import evaluate


def evaluate_in_jobs(evaluations: Sequence[Mapping[str, Any]], jobs: int) -> None:
    """Run evaluations one after the other, each in `jobs` processes of one thread; results lie in their folders.

    Args:
        evaluations: The arguments of each, as for `evaluate`.
        jobs: How many processes; with 1 this one does it.
    """
    if jobs == 1:
        for arguments in evaluations:
            evaluate(**arguments)
        return
    context = get_context("spawn")
    # One lock for all bars: each moves the cursor to its own line and back.
    with ProcessPoolExecutor(jobs, context, _begin, (os.getpid(), context.RLock())) as pool:
        list(pool.map(partial(_work, evaluations, jobs), range(jobs)))
    print("\r", end="", file=sys.stderr, flush=True)  # a bar that is cleared leaves the cursor where it ended


def _begin(parent: int, lock: Any) -> None:
    die_with_parent(parent)  # it would go on with all evaluations, beside the command that is given again
    tqdm.set_lock(lock)


def _work(evaluations: Sequence[Mapping[str, Any]], jobs: int, job: int) -> None:
    torch.set_num_threads(1)
    for arguments in evaluations:
        evaluate(**arguments, task=job, tasks=jobs, bar_line=job)
