"""`pl-distill budget`: parameters, predicted memory, operations and limits of devices, before a GPU is rented."""

import json as json_format
import sys
from pathlib import Path
from typing import Literal

from datamodules.files import write_json
from pl_distill.commands.parsing import find_recipe
from pl_distill.deploy.budget import SYSTEMS, Budget, predict
from pl_distill.deploy.budget_text import format_budget, memory_rows
from pl_distill.deploy.envelope import Envelope, load_envelope
from pl_distill.deploy.recipe import read_recipe
from pl_distill.errors import ConfigError
from pl_distill.evaluation.tables import ReportTable, write_report_table

BUDGET_FILE = "budget.json"
Precision = Literal["bf16", "fp16", "fp32"]


def budget(
    recipe: str = "distill/edinburgh.yaml",
    teacher: str | None = None,
    device: str = "orin-nx-16gb",
    animals: int = 8,
    frames: int = 20,
    precisions: list[Precision] = ["bf16", "fp32"],  # noqa: B006  # jsonargparse shows it, nobody changes it
    training: bool = True,
    gpus: int = 1,
    limit: Literal["warn", "fail"] = "warn",
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Predict what a recipe's systems need, without a GPU and without weights.

    Tables of parameters by part and definition, of peak memory of SAM 3 and of the student's system, of operations and
    of what is left on a device.
    Example: pl-distill budget --recipe distill/edinburgh.yaml --device orin-nx-16gb --limit fail
    Example: pl-distill budget --recipe distill/pen.yaml --teacher pen_teacher --json true

    Args:
        recipe: A recipe of `pl-distill fit`: a path, or the name of a shipped one.
        teacher: The SAM 3 (folder, shipped model, facebook/sam3) or a shipped configuration (real, pen, tiny); by
            default the recipe's.
        device: A shipped profile (agx-orin-32gb, agx-orin-64gb, orin-nano-8gb, orin-nx-8gb, orin-nx-16gb, thor), a YAML
            file, or "all".
        animals: Tracked at a time.
        frames: Length of the stream: what a session that forgets nothing grows to; others count as full.
        precisions: Of weights and activations; fp16 is of the size of bf16.
        training: Whether to predict a training step, too.
        gpus: That train together, each with the recipe's batch: above 1, what each of them holds with DDP and ZeRO.
        limit: Whether a student that does not fit the device in one of the precisions ends with exit code 1.
        json: Whether to print JSON instead of tables.
        out: A folder for budget.json and for the table that `pl-distill report --extras=[OUT]` shows.
    """
    if not precisions:
        raise ConfigError("--precisions", "is empty", "bf16, fp16 or fp32", "Name one.")
    for option, value, least in (("--animals", animals, 1), ("--frames", frames, 2), ("--gpus", gpus, 1)):
        if value < least:
            raise ConfigError(option, f"is {value}", f"at least {least}", "Correct it.")
    if gpus > 1 and not training:
        fix = "Leave one of the two out."
        raise ConfigError("--gpus", "is given with --training false", "a training that they share", fix)
    from pl_distill.deploy.envelope import shipped_envelopes

    envelopes = {name: load_envelope(name) for name in (shipped_envelopes() if device == "all" else [device])}
    found = predict(
        read_recipe(find_recipe(recipe), teacher),
        animals,
        frames,
        list(precisions),
        training=training,
        gpus=gpus,
        progress=lambda what: print(f"predicting {what}", file=sys.stderr, flush=True),
    )
    if json:
        print(json_format.dumps(found.to_json(envelopes), indent=2))
    else:
        print(format_budget(found, envelopes))
    if out is not None:
        write_budget(out, found, envelopes)
    misfits = []
    for envelope in envelopes.values():
        for precision in precisions:
            verdict = found.verdict(envelope, precision)
            if not verdict.fits:
                print(f"warning: in {precision}, {verdict}", file=sys.stderr)
                misfits.append(verdict)
    if limit == "fail" and misfits:
        misfits[0].enforce()


def write_budget(out: Path, found: Budget, envelopes: dict[str, Envelope]) -> None:
    """Write ``budget.json`` into the folder `out`, and the table that the report shows."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / BUDGET_FILE, found.to_json(envelopes))
    write_report_table(out, "budget", _report_table(found, found.precisions[0]))


def _report_table(found: Budget, precision: str) -> ReportTable:
    recipe = "/".join(Path(found.recipe).parts[-2:])  # of a page that is sent to others: not where it lies here
    text = (
        f"Predicted in {precision} for {found.animals} animals and {found.frames} frames of {recipe} with "
        f"{found.teacher}, GiB unless a row says GFLOP: memory of tensors, by running the modules on fake ones. "
        "Nothing was measured."
    )
    return ReportTable("Budget of the device", text, ["", *SYSTEMS], memory_rows(found, precision))
