"""Train a small vision transformer of DINOv3's family to tell the animals of pens apart, and what they do.

DINOv3 itself is trained without labels on 1.7 billion pictures; a pen and a CPU afford neither. Four signals stand for
them: where the marks of the animal's coat lie, which the pen knows and a network learns from the first step on; the
animal's identity, by supervised contrast with the others of its pen; and, so that half of the features keep how it
holds itself, its pose, which the pen knows as well, and its behaviour. Contrast alone stays at chance for hundreds of
steps: all embeddings first fall into one point.
"""

from functools import partial
from pathlib import Path

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from datamodules.crops import Cropping
from datamodules.edinburgh_output import BEHAVIOURS
from datamodules.pen.coats import MARK_MAP
from datamodules.pen_crop_files import POSE
from datamodules.pen_crops import CropBatch
from pl_distill.errors import CheckpointError
from pl_distill.evaluation.average_precision import average_precisions
from pl_distill.losses.contrastive import supervised_contrastive
from pl_distill.models.checkpoints import load_strictly
from pl_distill.models.dinov3 import IMAGENET_MEAN, IMAGENET_STD, TransformersBackbone
from pl_distill.models.embedder import PatchHead
from pl_distill.models.embedder_files import save_embedder
from pl_distill.models.embedder_load import load_embedder
from pl_distill.models.sam3_source import quiet_transformers
from pl_distill.modules.all_ranks import fresh_in_batch, from_all_ranks
from pl_distill.modules.exported import ExportedModule

LEAST_VARIANCE = 0.04
"""Of a pose's value in a batch: a batch without a sitting animal would divide by 0."""

ADAMW = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.05)


class EmbedderModule(ExportedModule):
    """Train an embedder on crops whose animal is known.

    Logs ``train/`` and ``val/`` with ``loss`` and its terms ``marks_loss`` (part of the variance that is not explained,
    0-1), ``pose_loss`` (the same, mean over `POSE`), ``identity_loss`` and ``behaviour_loss``; and of validation, whose
    herds are others, in percent ``val/rank1`` (how often the nearest crop of another day is the same animal) and
    ``val/mean_ap``, both within a pen, and ``val/behaviour_top1`` of a linear probe. The trainer needs `max_steps`.

    Args:
        hidden_size: Width of the transformer.
        layers: Of the transformer.
        heads: Of its attention.
        patch_size: Side of a patch in pixels.
        image_size: Side of a crop in pixels.
        dimension: Length of an embedding.
        cropping: How animals are cut out for it when it is used.
        temperature: Of the contrastive loss.
        identity_weight: Of the contrastive loss; that of the marks has 1.
        behaviour_weight: Of the behaviour's cross-entropy.
        pose_weight: Of the pose's part that is not explained.
        optimizer: Called with two groups of parameters, decayed and not decayed.
        warmup: Steps in which the learning rate rises.
        cooldown: Part of the run in which the learning rate falls to 0, at its end.
        attention: `transformers`' implementation; "eager" is faster on CPUs for a few tokens.
        weights: An embedder of the same shape to begin with, shipped or a folder: to train on, or to `validate` without
            a checkpoint; the linear probe of behaviours is not in it.
    """

    DECISIVE = ("temperature", "identity_weight", "behaviour_weight", "pose_weight")

    def __init__(
        self,
        hidden_size: int = 128,
        layers: int = 3,
        heads: int = 4,
        patch_size: int = 16,
        image_size: int = 96,
        dimension: int = 128,
        cropping: Cropping | None = None,
        temperature: float = 0.1,
        identity_weight: float = 1.0,
        behaviour_weight: float = 0.5,
        pose_weight: float = 1.0,
        optimizer: OptimizerCallable = ADAMW,
        warmup: int = 30,
        cooldown: float = 0.3,
        attention: str = "eager",
        weights: str | None = None,
    ) -> None:
        super().__init__(optimizer, warmup, cooldown)
        self.shape: dict[str, int | None] = {
            "hidden_size": hidden_size,
            "intermediate_size": 3 * hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_register_tokens": 1,
            "patch_size": patch_size,
            "image_size": image_size,
            # Drawn from torch's generator in training, which a resumed run does not have; crops are of one size anyway.
            "pos_embed_rescale": None,
        }
        self.image_size = image_size
        self.dimension = dimension
        self.cropping = Cropping(margin=0.1, blank_background=0.7, align=True) if cropping is None else cropping
        self.temperature = temperature
        self.identity_weight = identity_weight
        self.behaviour_weight = behaviour_weight
        self.pose_weight = pose_weight
        self.attention = attention
        self.weights = weights
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self._ranks: list[Tensor] = []
        self._precisions: list[Tensor] = []
        self._behaviours: list[Tensor] = []

    def configure_model(self) -> None:
        """Build the network, once."""
        if hasattr(self, "backbone"):
            return
        with quiet_transformers():
            model = DINOv3ViTModel(DINOv3ViTConfig(**self.shape))
            model.set_attn_implementation(self.attention)
        model.embeddings.mask_token.requires_grad_(False)  # nothing is masked here, and DDP waits for its gradient
        self.backbone = TransformersBackbone(model)
        tokens = (self.image_size // model.config.patch_size) ** 2
        self.head = PatchHead(tokens * model.config.hidden_size, self.dimension)
        if self.weights is not None:
            self._load(self.weights)
        self.marks = nn.Linear(self.dimension, MARK_MAP[0] * MARK_MAP[1])
        self.probe = nn.Linear(self.dimension, len(BEHAVIOURS))
        self.pose = nn.Linear(self.dimension, len(POSE))

    def _load(self, source: str) -> None:
        stored = load_embedder(source)
        if stored.head is None:
            raise CheckpointError(source, "has no head over its patches", "what this recipe exported", "Leave it out.")
        load_strictly(self.backbone, stored.backbone.state_dict(), source)
        load_strictly(self.head, stored.head.state_dict(), source)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map crops (B, 3, S, S), 0-1, to the two halves of their features: identity and posture, (B, D) each."""
        _, patches = self.backbone((images - self.mean) / self.std)
        return self.head.halves(patches)

    def training_step(self, batch: CropBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        return self._step(batch, "train")[0]

    def _step(self, batch: CropBatch, stage: str) -> tuple[Tensor, Tensor, Tensor]:
        identity, posture = self(batch.images)
        embeddings = F.normalize(identity, dim=-1)
        with torch.autocast(self.device.type, enabled=False):
            logits = self.probe(posture)
            terms = {
                "marks_loss": F.mse_loss(self.marks(identity), batch.marks) / batch.marks.var(),
                "identity_loss": supervised_contrastive(embeddings, batch.animals, self.temperature, batch.pens),
                "pose_loss": unexplained(self.pose(posture), batch.poses).mean(),
                "behaviour_loss": F.cross_entropy(logits, batch.behaviours),
            }
        loss = (
            terms["marks_loss"]
            + self.identity_weight * terms["identity_loss"]
            + self.pose_weight * terms["pose_loss"]
            + self.behaviour_weight * terms["behaviour_loss"]
        )
        terms = {"loss": loss, **terms}
        for name, value in terms.items():
            self.log(
                f"{stage}/{name}",
                value,
                prog_bar=name == "loss",
                batch_size=len(batch.images),
                sync_dist=stage != "train",
            )
        return loss, embeddings, logits

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self._ranks, self._precisions, self._behaviours = [], [], []

    def validation_step(self, batch: CropBatch, batch_idx: int) -> None:
        """Look for every crop of the second day among those of the first; a batch is one pen."""
        _, embeddings, logits = self._step(batch, "val")
        if not fresh_in_batch(self.trainer, batch_idx, size=1):
            return
        self._behaviours.append((logits.argmax(1) == batch.behaviours).float().cpu())
        queries, gallery = batch.days == 1, batch.days == 0
        if not queries.any() or not gallery.any():
            return
        likeness = embeddings[queries] @ embeddings[gallery].T
        right = batch.animals[gallery] == batch.animals[queries][:, None]
        known = right.any(1)
        likeness, right = likeness[known], right[known]
        self._ranks.append(right.gather(1, likeness.argmax(1, keepdim=True))[:, 0].float().cpu())
        self._precisions.append(
            torch.from_numpy(average_precisions(likeness.double().numpy(force=True), right.numpy(force=True)))
        )

    def on_validation_epoch_end(self) -> None:
        """Log the scores, over the crops of all ranks."""
        everyone = from_all_ranks((self._ranks, self._precisions, self._behaviours))
        for number, name in enumerate(("rank1", "mean_ap", "behaviour_top1")):
            if values := [one for rank in everyone for one in rank[number]]:
                self.log(f"val/{name}", 100 * torch.cat(values).mean(), prog_bar=number < 2, sync_dist=True)

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> Path:
        """Write the embedder as `load_embedder` reads it."""
        save_embedder(self.backbone.model, Path(folder), self.image_size, self.cropping, self.head, dtype=dtype)
        return Path(folder)


def unexplained(said: Tensor, true: Tensor) -> Tensor:
    """Return the part of the variance of each column of `true` (B, V) that `said` leaves, (V,)."""
    return (said - true).square().mean(0) / true.var(0, correction=0).clamp(min=LEAST_VARIANCE)
