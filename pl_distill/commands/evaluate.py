"""`pl-distill evaluate`: stream clips through a model, or through a student and its teacher, and score the tracks."""

from pathlib import Path

from datamodules.remote import COPIES, LocalCopies
from datamodules.splits import Part
from pl_distill.evaluation import evaluate as evaluation
from pl_distill.evaluation.behaviour_tables import format_behaviours
from pl_distill.evaluation.caveats import count_of
from pl_distill.evaluation.headline import format_baselines, format_table
from pl_distill.evaluation.trackers import Baseline
from pl_distill.models.embedder_load import PEN_EMBEDDER
from pl_distill.streaming import PruningPolicy


def evaluate(
    model: str,
    data: str,
    out: Path,
    teacher: str | None = None,
    prompt: str = "pig",
    split: Part = "test",
    max_frames: int | None = None,
    video: bool = True,
    policy: PruningPolicy = evaluation.DEFAULT_POLICY,
    device: str = "auto",
    seed: int = 0,
    task: int = 0,
    tasks: int = 1,
    baselines: list[Baseline] = [],  # noqa: B006  # jsonargparse shows it in the help; nothing changes it
    embedder: str = PEN_EMBEDDER,
    behaviour: str | None = None,
    copies: LocalCopies = COPIES,
    replays: Path | None = None,
) -> None:
    """Stream clips through teacher and student and score the tracks.

    Writes results.json, tracks as MOTChallenge text, annotated videos and pictures, and TensorBoard entries. What a
    killed run finished is not repeated.
    Example: pl-distill evaluate --model runs/demo/student --data runs/demo/shards --out runs/scores
    Example: pl-distill evaluate --model pen_teacher --data shards --out runs/scores --behaviour pen_behaviour

    Args:
        model: A SAM 3 (folder or hub name), or a student (folder, shipped, or checkpoint of `pl-distill fit`).
        data: Folder of shards, as `pl-distill data shards` writes it; a path or an https, s3 or gs URL.
        out: Folder of everything that is written.
        teacher: The SAM 3 to compare with and to put the student into; a student knows its own.
        prompt: What to look for: a word whose embedding is stored beside the SAM 3.
        split: Part of the shards to score.
        max_frames: Only the first so many frames of each clip.
        video: Whether to write annotated videos, and a strip of pictures of each error.
        policy: What the tracker forgets, when tracks end, and whether animals are recognised by their looks.
        device: cpu, cuda, cuda:1, or auto.
        seed: Of torch's generator.
        task: Number of this job among several that share the clips and --out, from 0: $SLURM_ARRAY_TASK_ID.
        tasks: How many such jobs there are; the last to end scores all clips.
        baselines: Simpler trackers on the same networks and clips: stock (transformers' own session, which forgets
            nothing: mind the memory of long clips) and iou (the detector alone, boxes joined by overlap), as in
            --baselines=[stock,iou].
        embedder: Describes animals for --behaviour: a shipped one, a folder, a hub name, a DINOv3 of timm.
        behaviour: Names what animals do, as `track` does: a shipped head (pen_behaviour) or a folder. It is scored from
            the tracks and from the boxes of truth, and the difference is what tracking costs.
        copies: Where copies of shards behind a URL lie, and how much room they may take.
        replays: Folder of another evaluation: what it has of the same model, policy and data is taken instead of being
            streamed again, such as the teacher's tracks for the student of another seed.
    """
    results = evaluation.evaluate(
        model, data, out, teacher, prompt, split, max_frames, video, policy, device, seed, task, tasks, baselines,
        embedder=embedder, behaviour=behaviour,
        copies=copies, replays=replays,
    )  # fmt: skip
    if results is None:
        print(f"job {task} of {tasks} has replayed its clips; the last of the others writes the scores")
        return
    print(
        f"\n{split} of {data}, {count_of(len(next(iter(results.models.values())).clips), 'clip')}, prompt {prompt!r}\n"
    )
    print(format_table(results))
    if results.baselines:
        print(f"\n{format_baselines(results)}")
    if behaviour is not None:
        print(f"\n{format_behaviours(results)}")
    for note in results.notes:
        print(f"note: {note}")
    print(f"\nscores    {out / evaluation.RESULTS_FILE}")
    if video:
        print(f"videos    {out / 'videos'}")
    print(f"tracks    {out / 'tracks'}")
    print(f"errors    {out / 'failures'}")
    print(f"curves    tensorboard --logdir {out}")
    print(f"next      pl-distill report --results {out / evaluation.RESULTS_FILE}")
