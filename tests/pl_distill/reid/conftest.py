import numpy as np
import pytest

from pl_distill.reid.pool import EmbeddingPool
from pl_distill.reid.samples import Sample
from pl_distill.reid.storage import normalised

EMBEDDER = "a" * 64
DIMENSION = 16


@pytest.fixture(scope="session")
def unit():
    def make(*shape, seed=0):
        return normalised(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))

    return make


@pytest.fixture(scope="session")
def sample(unit):
    def make(time_s, number=1, *, camera="cam", session="s", vector=None, quality=1.0):
        vector = unit(DIMENSION, seed=number) if vector is None else vector
        return Sample(camera, session, number, time_s, vector, quality)

    return make


@pytest.fixture
def open_pool(tmp_path):
    def make(embedder=EMBEDDER, dimension=DIMENSION, sampling=None, **options):
        return EmbeddingPool(tmp_path / "pool", embedder, dimension, sampling, **options)

    return make


@pytest.fixture
def pool(open_pool):
    with open_pool() as opened:
        yield opened
