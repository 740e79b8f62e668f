"""One cell of an ablation: an arm trained with one seed, and scored. Several processes share the cells of a table."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.distillation import DistillationDataModule
from datamodules.files import temporary_path, write_json
from datamodules.locks import held
from datamodules.pen import EVALUATION_SEED
from datamodules.shard_manifest import ShardManifest
from datamodules.shard_sample import key_prefix
from datamodules.splits import Part
from pl_distill.commands.lightning import run_lightning
from pl_distill.commands.steps import Steps
from pl_distill.errors import ConfigError
from pl_distill.evaluation.ablation import Share, tracking_shares
from pl_distill.evaluation.evaluate import RESULTS_FILE, evaluate
from pl_distill.evaluation.results import read_results
from pl_distill.modules.feature_scores import feature_shares

LOG = "cell.json"
FEATURES = "features.json"


@dataclass(frozen=True)
class Judge:
    """How every cell of a table is scored.

    Args:
        teacher: The SAM 3 that made the maps, a folder or hub name.
        shards: Image shards.
        cache: The maps that every cell is compared with, whatever it has learned from.
        prompt: What to look for.
        split: Part of the shards that is streamed and scored.
        max_frames: Only the first so many frames of each of its clips.
    """

    teacher: str
    shards: Path
    cache: Path
    prompt: str
    split: Part
    max_frames: int | None


@dataclass(frozen=True)
class Cell:
    """An arm with a seed.

    Args:
        arm: Its name.
        seed: Of weights and data.
        table: Folder of the whole table; the cell has a folder of its own in it.
        words: Of `pl-distill fit`, folder and checkpoint excepted.
        settings: What the cell depends on, as plain values: a folder that was made with others is refused.
        judge: How it is scored.
    """

    arm: str
    seed: int
    table: Path
    words: Sequence[str]
    settings: Mapping[str, Any]
    judge: Judge

    @property
    def folder(self) -> Path:
        """Where everything of the cell lies."""
        return self.table / self.arm / f"seed-{self.seed}"

    @property
    def done(self) -> bool:
        """Whether the cell is trained and scored.

        Raises:
            ConfigError: It was made with other settings.
        """
        return "evaluate" in self._steps().done

    @property
    def seconds(self) -> float:
        """What the finished steps took."""
        return sum(step.seconds for step in self._steps().done.values())

    def make(self, *, wait: bool) -> bool:
        """Train and score, from where a killed process stopped; nothing is repeated.

        Args:
            wait: For another process that has the cell in hand, to take over what it leaves; else leave it alone.

        Returns:
            Whether it was this process's turn.

        Raises:
            ConfigError: It was made with other settings, or could not be scored.
        """
        with held(self.folder / "cell.lock", wait=wait) as mine:
            if mine:
                steps = self._steps()
                steps.run("train", "distil", self.folder / FEATURES, self._train)
                steps.run("evaluate", "stream and score", self.folder / RESULTS_FILE, self._evaluate)
            return mine

    def read(self) -> dict[str, dict[str, Share]]:
        """Return what each clip adds to each metric."""
        features = json.loads((self.folder / FEATURES).read_text(encoding="utf-8"))
        shares = {name: {clip: Share(**share) for clip, share in clips.items()} for name, clips in features.items()}
        return shares | tracking_shares(read_results(self.folder / RESULTS_FILE))

    def _steps(self) -> Steps:
        return Steps(self.folder / LOG, dict(self.settings), total=2)

    def _train(self) -> None:
        run = run_lightning(
            ["fit", *self.words, f"--trainer.default_root_dir={self.folder / 'logs'}", "--ckpt_path=last"]
        )
        run.model.save_pretrained(self.folder / "student")
        shards, cache = str(self.judge.shards), str(self.judge.cache)
        maps = DistillationDataModule(shards, cache, run.datamodule.batch_size, run.datamodule.num_workers)
        day_of = {key_prefix(name): clip.day for name, clip in ShardManifest.load(self.judge.shards).clips.items()}
        shares = feature_shares(run.model, maps.val_dataloader(), day_of, run.trainer.strategy.root_device)
        write_json(
            self.folder / FEATURES,
            {name: {clip: asdict(share) for clip, share in clips.items()} for name, clips in shares.items()},
        )

    def _evaluate(self) -> None:
        judge, teacher = self.judge, self.table / "teacher"
        for kind in ("tracks", "pictures"):
            _link(self.folder / kind / "teacher", teacher / kind)
        score = partial(evaluate, self.folder / "student", judge.shards, self.folder, judge.teacher, judge.prompt)
        streamed = teacher / "streamed"
        with ExitStack() as stack:
            if not streamed.exists():  # one process streams the teacher, the others wait and find its tracks
                stack.enter_context(held(teacher / "teacher.lock", wait=True))
                if streamed.exists():
                    stack.close()
            if score(judge.split, judge.max_frames, video=False, seed=EVALUATION_SEED) is None:
                found = "was streamed, but not scored: tracks are missing, or another process has it in hand"
                raise ConfigError(self.folder, found, "the tracks of all clips", "Run the same command again.")
            streamed.touch()


def _link(link: Path, target: Path) -> None:
    """Let the evaluations of all cells find the teacher's replays in one place: it is the same teacher every time."""
    target.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    nearby = Path(os.path.relpath(target.resolve(), link.parent.resolve()))  # the table may be moved, or copied
    if not link.is_symlink() or link.readlink() != nearby:
        temporary = temporary_path(link)
        temporary.symlink_to(nearby, target_is_directory=True)
        temporary.replace(link)
