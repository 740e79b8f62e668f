import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from datamodules.sampling import EpochSampler, share_of_rank, shuffled_order

plans = st.fixed_dictionaries(
    {
        "shard_sizes": st.lists(st.integers(1, 9), min_size=1, max_size=7),
        "ranks": st.integers(1, 4),
        "batch_size": st.integers(1, 5),
        "training": st.booleans(),
        "block_shards": st.integers(1, 3),
        "seed": st.integers(0, 99),
    }
)


def _samplers(plan: dict) -> list[EpochSampler]:
    sizes, ranks = plan["shard_sizes"], plan["ranks"]
    options = {name: value for name, value in plan.items() if name not in ("shard_sizes", "ranks")}
    return [EpochSampler(sizes, rank=rank, ranks=ranks, **options) for rank in range(ranks)]


def _batches(sampler: EpochSampler, workers: int = 0) -> list[list[int]]:
    loader = DataLoader(
        range(sum(sampler.shard_sizes)), sampler.batch_size, sampler=sampler, num_workers=workers, collate_fn=list
    )
    return list(loader)


@given(plan=plans, epoch=st.integers(0, 3))
def test_every_rank_has_as_many_batches_of_the_same_sizes(plan, epoch):
    samplers = _samplers(plan)
    for sampler in samplers:
        sampler.set_epoch(epoch)
    sizes = [[len(batch) for batch in _batches(sampler)] for sampler in samplers]
    assert all(one == sizes[0] for one in sizes)
    assert all(len(one) == sampler.steps_per_epoch for one, sampler in zip(sizes, samplers, strict=True))
    if plan["training"]:
        assert set(sizes[0]) == {plan["batch_size"]}


@given(plan=plans, epoch=st.integers(0, 3))
def test_all_samples_are_read_and_none_is_repeated_more_than_filling_up_needs(plan, epoch):
    samplers = _samplers(plan)
    for sampler in samplers:
        sampler.set_epoch(epoch)
    counts = Counter(index for sampler in samplers for index in sampler)
    samples, drawn = sum(plan["shard_sizes"]), sum(len(sampler) for sampler in samplers)
    assert set(counts) == set(range(samples))
    assert min(counts.values()) == drawn // samples
    assert max(counts.values()) == math.ceil(drawn / samples)


@given(plan=plans)
def test_what_is_fresh_on_some_rank_is_every_sample_once(plan):
    fresh = [index for one in _samplers({**plan, "training": False}) for index in list(one)[: one.fresh]]
    assert fresh == list(range(sum(plan["shard_sizes"])))


@given(plan=plans, epoch=st.integers(0, 3), batches=st.integers(1, 6), data=st.data())
def test_where_the_counts_allow_it_every_sample_is_read_once_an_epoch_also_over_a_resume(plan, epoch, batches, data):
    samples = plan["ranks"] * plan["batch_size"] * batches
    cuts = sorted(data.draw(st.lists(st.integers(0, samples), max_size=6)))
    sizes = np.diff([0, *cuts, samples]).tolist()  # shards of any sizes, also empty ones
    consumed = data.draw(st.integers(0, batches))
    counts: Counter = Counter()
    for sampler in _samplers({**plan, "shard_sizes": sizes}):
        sampler.set_epoch(epoch)
        counts.update(index for batch in _batches(sampler)[:consumed] for index in batch)
        sampler.resume(epoch, consumed)
        counts.update(index for batch in _batches(sampler) for index in batch)
    assert counts == dict.fromkeys(range(samples), 1)


@given(plan=plans, epoch=st.integers(0, 3), data=st.data())
def test_a_resumed_epoch_is_the_rest_of_it_and_the_next_epoch_is_whole(plan, epoch, data):
    for whole, resumed in zip(_samplers(plan), _samplers(plan), strict=True):
        consumed = data.draw(st.integers(0, whole.steps_per_epoch))
        whole.set_epoch(epoch)
        resumed.resume(epoch, consumed)
        assert _batches(resumed) == _batches(whole)[consumed:]
        assert len(resumed) == len(whole)  # Lightning takes the length for the end of the epoch
        for sampler in (whole, resumed):
            sampler.set_epoch(epoch + 1)
        assert _batches(resumed) == _batches(whole)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(workers):
    sampler = EpochSampler([5, 3, 4], batch_size=2, seed=7)
    sampler.resume(2, 1)
    assert _batches(sampler, workers) == _batches(sampler)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_with_workers_read_everything_once_between_them_in_equal_steps(ranks, workers):
    plan = {"shard_sizes": [7, 2, 15, 1, 11], "ranks": ranks, "batch_size": 2, "seed": 3, "block_shards": 2}
    batches = [_batches(sampler, workers) for sampler in _samplers(plan)]
    assert {len(one) for one in batches} == {36 // (2 * ranks)}
    assert sorted(index for one in batches for batch in one for index in batch) == list(range(36))


def test_epochs_and_seeds_differ_and_repeat_exactly():
    def order(seed, epoch):
        return shuffled_order([8, 8, 8], seed=seed, epoch=epoch, block_shards=2).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_a_block_is_used_up_before_the_next_one_is_opened():
    order = shuffled_order([10] * 6, seed=3, epoch=0, block_shards=2)
    shards = order // 10
    assert [len(set(shards[first : first + 20])) for first in (0, 20, 40)] == [2, 2, 2]
    assert len(set(shards[:10])) == 2, "samples of the block's shards are mixed"


def test_what_is_missing_is_taken_from_the_start():
    order = np.array([4, 2, 0, 1, 3])
    shares = [share_of_rank(order, batch_size=2, rank=rank, ranks=2, full_batches=True) for rank in (0, 1)]
    assert [share.tolist() for share in shares] == [[4, 2, 0, 1], [3, 4, 2, 0]]
    shares = [share_of_rank(order, batch_size=2, rank=rank, ranks=2, full_batches=False) for rank in (0, 1)]
    assert [share.tolist() for share in shares] == [[4, 2, 0], [1, 3, 4]]


def test_nothing_to_read_is_refused():
    with pytest.raises(ValueError, match="0 samples"):
        EpochSampler([0, 0], batch_size=2)
