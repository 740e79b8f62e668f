"""Behaviours as tables: printed by the console, drawn by the report, so that both say the same."""

from pl_distill.evaluation.behaviour_results import BehaviourResult, NamedFrames
from pl_distill.evaluation.headline import plain_table
from pl_distill.evaluation.results import Results
from pl_distill.evaluation.tables import ReportTable

_NONE = "-"


def behaviour_tables(results: Results) -> list[ReportTable]:
    """Return what tracking costs, and the classes; nothing where no head ran."""
    named = {role: model.behaviour for role, model in results.models.items() if model.behaviour is not None}
    return [_drop_table(named), _class_table(named)] if named else []


def format_behaviours(results: Results) -> str:
    """Return both tables as plain text."""
    return "\n\n".join(
        plain_table([["", *table.columns[1:]], *table.rows], left=1) for table in behaviour_tables(results)
    )


def _drop_table(named: dict[str, BehaviourResult]) -> ReportTable:
    rows = []
    for role, one in named.items():
        rows += [
            [f"boxes of truth, all animals ({role})", *_scores(one.truth), "", ""],
            [f"boxes of truth, animals that the {role} covers", *_scores(one.covered_truth), "", ""],
            [f"tracks of the {role}", *_scores(one.tracks), _show(one.covered), _show(one.right_of_all)],
            [f"drop by the tracks of the {role}", "", _show(one.top1_drop), _show(one.macro_f1_drop), "", ""],
        ]
    return ReportTable(
        "What the animals do",
        "The same chain (embedder and behaviour head) behind the truth and behind each tracker, frame by frame. A "
        "track answers for the animal that it covers by half. The drop compares the same animals in the same frames: "
        "what boxes, masks and identities of the tracker cost. Animals without a track are not in it; "
        "`right of all` counts them as wrong.",
        ["from", "animal-frames", "top-1 %", "macro-F1 %", "covered %", "right of all %"],
        rows,
    )


def _class_table(named: dict[str, BehaviourResult]) -> ReportTable:
    first = next(iter(named.values()))
    rows = []
    for name, of_truth in first.truth.classes.items():
        row = [name, str(of_truth.animal_frames), f"{of_truth.f1:.1f}"]
        for one in named.values():
            found = one.tracks.classes.get(name)
            if found is None:
                row += [_NONE] * 4
            else:
                numbers = (found.precision, found.recall, found.f1)
                row += [str(found.animal_frames), *(f"{value:.1f}" for value in numbers)]
        rows.append(row)
    columns = ["behaviour", "animal-frames", "F1 % from truth"]
    for role in named:
        columns += [f"covered by the {role}", "precision %", "recall %", "F1 %"]
    return ReportTable(
        "Behaviour by behaviour",
        "F1 from the boxes of truth over all animals; then, over the animals that a track covers, from the tracks.",
        columns,
        rows,
    )


def _scores(scores: NamedFrames) -> list[str]:
    return [str(scores.animal_frames), _show(scores.top1), _show(scores.macro_f1)]


def _show(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"
