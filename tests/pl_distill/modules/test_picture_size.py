"""Windows of another size than the model's end before the first step, with the options that mend it."""

import pytest
from lightning.pytorch import Trainer

from datamodules.tracking import TrackingDataModule
from pl_distill.errors import ConfigError
from pl_distill.modules.sam3_detector import Sam3DetectorModule
from pl_distill.modules.sam3_tracker import Sam3TrackerModule

FIX = "Give --data.image_size 112 --data.mask_size 32."


@pytest.mark.parametrize("kind", [Sam3DetectorModule, Sam3TrackerModule])
@pytest.mark.parametrize("verb", ["fit", "validate"])
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({}, f"data.image_size: is 1008, expected 112, which {{teacher}} takes. {FIX}"),
        ({"image_size": 112}, f"data.mask_size: is 288, expected 32, which {{teacher}} takes. {FIX}"),
    ],
)
def test_windows_of_another_size_than_the_models_are_refused(kind, verb, sizes, message, squares, teacher, tmp_path):
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(accelerator="cpu", max_steps=1, num_sanity_val_steps=0, default_root_dir=tmp_path, **quiet)
    data = TrackingDataModule(squares, batch_size=1, **sizes)
    with pytest.raises(ConfigError) as caught:
        getattr(trainer, verb)(kind(str(teacher)), data)
    assert str(caught.value) == message.format(teacher=teacher)
