"""A small distillation on random maps, for the tests of its module."""

from functools import partial

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import default_collate

from datamodules.resumption import ResumableDataLoader, resume_point
from datamodules.sampling import EpochSampler
from pl_distill.models.tinyvit_fpn import TinyViTFPN
from pl_distill.modules.distillation import DistillationModule

STUDENT = partial(
    TinyViTFPN,
    body="tiny_vit_5m_224",
    embed_dims=[16, 16, 32, 32],
    depths=[1, 1, 1, 1],
    num_heads=[1, 1, 2, 2],
    window_sizes=[7, 4, 2, 1],
    body_size=32,
    fpn_channels=16,
    norm_groups=4,
)
FRAMES = 8


class Maps(LightningDataModule):
    """Random pictures and maps of the teacher's shape; shuffled, resumable, the same at every start."""

    def __init__(self, shape=(32, 8, 8), trunk_sha256=None, preprocessing=None, trunk_settings=None) -> None:
        super().__init__()
        self.teacher_trunk_sha256 = trunk_sha256
        self.preprocessing = preprocessing
        self.trunk_settings = trunk_settings
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(FRAMES, 3, 32, 32, generator=generator)
        maps = torch.randn(FRAMES, *shape, generator=generator) + 2
        self.frames = [{"key": str(i), "image": images[i], "teacher_map": maps[i]} for i in range(FRAMES)]

    def train_dataloader(self):
        sampler = EpochSampler([FRAMES], batch_size=2)
        sampler.resume(*resume_point(self.trainer))
        return self._loader(sampler)

    def val_dataloader(self):
        return self._loader(EpochSampler([FRAMES], batch_size=4, training=False))

    def _loader(self, sampler):
        return ResumableDataLoader(self.frames, sampler, collate_fn=default_collate)


def build(teacher, **changes):
    return DistillationModule(str(teacher), **{"student": STUDENT, **changes})


def trainer(folder, *, max_steps=4, callbacks=(), **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_steps=max_steps,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        num_sanity_val_steps=0,
        **{**quiet, **options},
    )


def fit(teacher, folder, *, data=None, ckpt_path=None, module=None, **options):
    torch.manual_seed(0)
    module = module or build(teacher)
    runner = trainer(folder, **options)
    runner.fit(module, datamodule=data or Maps(), ckpt_path=ckpt_path)
    return module, runner
