from pathlib import Path

import pytest

from pl_distill.models.sam3 import write_random_sam3


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> Path:
    return write_random_sam3("tiny", tmp_path_factory.mktemp("sam3") / "tiny", seed=0)
