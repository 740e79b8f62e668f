from dataclasses import replace

import pytest

from datamodules.pen import load_pen_config


@pytest.fixture
def small():
    """The default pen in pictures of 160 x 90."""
    return replace(load_pen_config("day"), width=160, height=90)
