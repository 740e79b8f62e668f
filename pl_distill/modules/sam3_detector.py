"""Train SAM 3's detector: words in, boxes, scores and masks out; from scratch on a CPU, or the heads of the real one.

Source: facebookresearch/sam3, sam3/train (matching and losses, see `pl_distill.losses.detection`); transformers has
none. Nothing here knows where the pictures come from.
"""

import math
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torchvision.ops import box_iou

from datamodules.windows import WindowBatch
from pl_distill.errors import ConfigError
from pl_distill.evaluation.average_precision import BoxScores
from pl_distill.losses.detection import DetectionLoss, TokenBoxHead, object_counts
from pl_distill.losses.masks import mask_iou
from pl_distill.models.sam3_detector import DetectorOutput, detect
from pl_distill.models.sam3_training import TrainableSam3, open_sam3, save_sam3
from pl_distill.modules.all_ranks import fresh_in_batch, from_all_ranks, mean_over_ranks
from pl_distill.modules.exported import ExportedModule
from pl_distill.modules.picture_size import check_picture_size
from pl_distill.modules.prompt_sampling import Prompt, Vocabulary

ADAMW = partial(torch.optim.AdamW, lr=5e-4, weight_decay=0.05)


class Sam3DetectorModule(ExportedModule):
    """Train the detector of a SAM 3 on labelled frames.

    Logs ``train/`` and ``val/`` with each term of the loss, and for each word ``val/<word>_ap50``; for the animals
    ``val/precision`` and ``val/recall`` at `score`, ``val/mask_iou`` of the hits, and ``val/false_alarms``: the part of
    pictures in which a word for nothing finds something. The trainer needs `max_steps`.

    Args:
        sam3: To start from scratch, a configuration: ``pen`` or a YAML file. To fine-tune, a folder or hub
            name.
        vocabulary: What the identities of the data are called.
        loss: What is minimised.
        mask_share: Part of the prompts of a step whose masks are computed, 0-1: masks cost a third of a step.
        frozen: Parts of the detector that stay as they are, by the beginning of their parameters' names:
            ``vision_encoder.backbone`` and ``text_encoder`` where thousands of frames meet the real SAM 3.
        optimizer: Called with two groups of parameters, decayed and not decayed.
        warmup: Steps in which the learning rate rises.
        cooldown: Part of the run in which the learning rate falls to 0, at its end.
        attention: `transformers`' implementation of attention; "eager" is faster on CPUs for a few hundred tokens.
        score: From which score on a detection counts in precision, recall and false alarms.
    """

    DECISIVE = ("vocabulary", "loss", "mask_share", "frozen")

    def __init__(
        self,
        sam3: str,
        vocabulary: Vocabulary | None = None,
        loss: DetectionLoss | None = None,
        mask_share: float = 1.0,
        frozen: Sequence[str] = (),
        optimizer: OptimizerCallable = ADAMW,
        warmup: int = 200,
        cooldown: float = 0.3,
        attention: str = "sdpa",
        score: float = 0.5,
    ) -> None:
        super().__init__(optimizer, warmup, cooldown)
        self.sam3 = sam3
        self.vocabulary = Vocabulary() if vocabulary is None else vocabulary
        self.loss = DetectionLoss() if loss is None else loss
        self.mask_share = mask_share
        self.frozen = tuple(frozen)
        self.attention = attention
        self.score = score
        self._scores: dict[str, BoxScores] = {}
        self._mask_ious: list[float] = []
        self._false_alarms: list[float] = []

    def configure_model(self) -> None:
        """Build or load the model, once."""
        if hasattr(self, "detector"):
            return
        opened = open_sam3(self.sam3, attention=self.attention)
        self._opened: list[TrainableSam3] = [opened]  # a list hides tracker and processor from state_dict
        self.detector = opened.model.detector_model
        self.token_head = TokenBoxHead(opened.model.config.detector_config.detr_encoder_config.hidden_size)
        names = [name for name, _ in self.detector.named_parameters()]
        for beginning in self.frozen:
            if not any(name.startswith(beginning) for name in names):
                raise ConfigError(
                    "model.frozen", f"names {beginning!r}", "the beginning of a parameter's name", f"As in {names[0]}."
                )
        for name, parameter in self.detector.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen) if self.frozen else True)
        self.detector.train()  # it is loaded to be used, and Lightning keeps the mode that it finds: no dropout
        for name, module in self.detector.named_modules():
            if self.frozen and name.startswith(self.frozen):
                module.eval()

    def on_fit_start(self) -> None:
        """Refuse pictures of another size than the model's."""
        check_picture_size(self.trainer, self._opened[0].model, self.sam3)

    def on_validation_start(self) -> None:
        """Refuse them also without a fit."""
        self.on_fit_start()

    def forward(
        self, images: Tensor, prompts: Sequence[Prompt], mask_share: float = 1.0
    ) -> tuple[DetectorOutput, Tensor]:
        """Look for P prompts in B pictures; also say for which prompts masks were computed, (P,), bool.

        They are for the first `mask_share` of those that have masks to compare with.
        """
        input_ids, attention_mask = self._opened[0].tokenize([prompt.word for prompt in prompts])
        index = torch.tensor([prompt.image for prompt in prompts], device=images.device)
        known = [prompt.truth.masks is not None and len(prompt.truth.boxes) > 0 for prompt in prompts]
        left = math.ceil(mask_share * sum(known))
        with_masks = torch.tensor(
            [has and sum(known[:number]) < left for number, has in enumerate(known)], device=images.device
        )
        output = detect(
            self.detector, images, input_ids.to(images.device), attention_mask.to(images.device), index, with_masks
        )
        return output, with_masks

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch; the questions depend on seed and step only."""
        chance = random.Random(f"{torch.initial_seed()}-{self.global_step}-{self.global_rank}")
        prompts = self.vocabulary.ask([frame for window in batch.truth for frame in window], chance)
        chance.shuffle(prompts)
        _, terms = self._compare(batch, prompts, self.mask_share)
        self._log("train", terms, len(batch.images))
        return terms["loss"]

    def _compare(
        self, batch: WindowBatch, prompts: Sequence[Prompt], mask_share: float = 1.0
    ) -> tuple[DetectorOutput, dict[str, Tensor]]:
        output, with_masks = self(batch.images.flatten(0, 1), prompts, mask_share)
        output = output.float()
        token_boxes = self.token_head(output.tokens).float()
        truth = [prompt.truth for prompt in prompts]
        counts = mean_over_ranks(object_counts(truth, with_masks))
        with torch.autocast(self.device.type, enabled=False):
            terms = self.loss(output, token_boxes, truth, with_masks, counts)
        return output, terms

    def _log(self, stage: str, terms: dict[str, Tensor], size: int) -> None:
        for name, term in terms.items():
            self.log(f"{stage}/{name}", term, prog_bar=name == "loss", batch_size=size, sync_dist=stage != "train")

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self._scores = {word: BoxScores() for word in self.vocabulary.words}
        self._mask_ious, self._false_alarms = [], []

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        """Ask every picture for every word and for one that means nothing."""
        frames = [frame for window in batch.truth for frame in window]
        prompts = []
        for image, frame in enumerate(frames):
            chance = random.Random(f"{batch_idx}-{image}")
            for word in (*self.vocabulary.words, self.vocabulary.absent_word(chance)):
                prompts.append(Prompt(image, word, self.vocabulary.truth(word, frame)))
        output, terms = self._compare(batch, prompts)
        self._log("val", terms, len(frames))
        presence = output.presence_logits[-1].sigmoid()
        scores = output.logits[-1].sigmoid() * presence[:, None]
        fresh = fresh_in_batch(self.trainer, batch_idx, len(batch.truth)) * batch.images.shape[1]
        mask_row = -1
        for number, prompt in enumerate(prompts):
            if prompt.image >= fresh:
                break
            truth = prompt.truth
            mask_row += int(truth.masks is not None and len(truth.boxes) > 0)
            if prompt.word not in self._scores:
                self._false_alarms.append(float(scores[number].max() >= self.score))
                continue
            overlaps = box_iou(output.boxes[-1, number], truth.boxes).cpu().double().numpy()
            pairs = self._scores[prompt.word].add(scores[number].cpu().double().numpy(), overlaps)
            kept = [(query, target) for query, target in pairs if scores[number, query] >= self.score]
            if prompt.word == self.vocabulary.animal and truth.masks is not None and kept:
                queries, targets = zip(*kept, strict=True)
                ious = mask_iou(output.masks[mask_row, list(queries)], truth.masks[list(targets)])
                self._mask_ious += ious.tolist()

    def on_validation_epoch_end(self) -> None:
        """Log the scores, over the pictures of all ranks."""
        everyone = from_all_ranks((self._scores, self._mask_ious, self._false_alarms))
        scores = {word: BoxScores.join([rank[0][word] for rank in everyone]) for word in self._scores}
        mask_ious = [iou for rank in everyone for iou in rank[1]]
        false_alarms = [alarm for rank in everyone for alarm in rank[2]]
        for word, counted in scores.items():
            if counted.objects:
                self.log(f"val/{word}_ap50", counted.average_precision(), prog_bar=True, sync_dist=True)
        precision, recall = scores[self.vocabulary.animal].precision_recall(self.score)
        self.log("val/precision", precision, prog_bar=True, sync_dist=True)
        self.log("val/recall", recall, prog_bar=True, sync_dist=True)
        self.log("val/mask_iou", float(np.mean(mask_ious or [0.0])), prog_bar=True, sync_dist=True)
        self.log("val/false_alarms", 100 * float(np.mean(false_alarms or [0.0])), sync_dist=True)

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
        """Write the whole SAM 3 with the trained detector, as `load_sam3` reads it."""
        return save_sam3(self._opened[0], Path(folder), self.vocabulary.words, dtype=dtype)
