"""Does the student's map mean the same to SAM 3 as its teacher's: masks of both through the same frozen heads."""

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.feature_preview import spread
from pl_distill.errors import ConfigError
from pl_distill.models.sam3_heads import MaskHeads, load_heads, overlap
from pl_distill.modules.distillation import DistillationModule


class MaskAgreement(Callback):
    """Log `val/mask_agreement`: the overlap of what SAM 3 takes for animals in the student's and the teacher's map.

    0 to 1, as probabilities (sum of the smaller over sum of the larger), the mean over a few frames that are spread
    over the validation set; 1 for equal maps, with a random teacher never near 0. Costs the loading of the teacher, and
    for each frame two runs of its detector behind the necks (24.5M parameters at real size).

    Args:
        prompt: What to look for: a word whose embedding is stored beside the teacher.
        frames: On how many frames of each process.

    Raises:
        ConfigError: `frames` is not positive.
    """

    def __init__(self, prompt: str = "pig", frames: int = 4) -> None:
        if frames < 1:
            raise ConfigError("MaskAgreement.frames", f"is {frames}", "at least 1", "Give a positive number.")
        self.prompt = prompt
        self.frames = frames
        self._heads: MaskHeads | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the heads of the module's teacher.

        Raises:
            ConfigError: The module distils no teacher, or the prompt is not stored.
        """
        if not isinstance(pl_module, DistillationModule):
            found = f"is used with {type(pl_module).__name__}"
            raise ConfigError("MaskAgreement", found, "DistillationModule", "Take it out of trainer.callbacks.")
        if self._heads is None and stage in ("fit", "validate"):
            self._heads = load_heads(pl_module.teacher, self.prompt)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Compare the first frame of some batches."""
        if batch_idx not in spread(self.frames, trainer.num_val_batches[0]):
            return
        heads = cast(MaskHeads, self._heads).to(pl_module.device)
        student, teacher = (
            heads([level[:1].float() for level in outputs[f"{who}_levels"][:3]]) for who in ("student", "teacher")
        )
        pl_module.log("val/mask_agreement", overlap(student, teacher).mean(), batch_size=1, sync_dist=True)
