from hypothesis import given
from hypothesis import strategies as st

from datamodules.shard_plan import Segment, plan_shards, shard_sizes

lengths = st.lists(st.integers(0, 40), max_size=6)
most = st.integers(1, 15)


def plan(frames, samples_per_shard):
    return plan_shards("val", [(f"clip {number}", count) for number, count in enumerate(frames)], samples_per_shard)


def test_ten_frames_in_shards_of_at_most_four_are_four_three_and_three():
    assert shard_sizes(10, 4) == [4, 3, 3]
    assert shard_sizes(8, 4) == [4, 4]
    assert shard_sizes(0, 4) == []


def test_a_clip_may_end_in_the_next_shard():
    shards = plan_shards("train", [("a", 4), ("b", 0), ("c", 3)], 4)
    assert [shard.file for shard in shards] == ["train/train-000000.tar", "train/train-000001.tar"]
    assert [shard.segments for shard in shards] == [(Segment("a", 0, 4),), (Segment("c", 0, 3),)]
    shards = plan_shards("test", [("a", 3), ("c", 3)], 4)
    assert [shard.segments for shard in shards] == [(Segment("a", 0, 3),), (Segment("c", 0, 3),)]
    shards = plan_shards("test", [("a", 5), ("c", 1)], 4)
    assert [shard.segments for shard in shards] == [
        (Segment("a", 0, 3),),
        (Segment("a", 3, 2), Segment("c", 0, 1)),
    ]


@given(lengths, most)
def test_shards_differ_by_at_most_one_sample_and_none_is_too_large_or_needless(frames, samples_per_shard):
    sizes = [shard.samples for shard in plan(frames, samples_per_shard)]
    assert sum(sizes) == sum(frames)
    if sizes:
        assert max(sizes) - min(sizes) <= 1
        assert 0 < max(sizes) <= samples_per_shard
        assert (len(sizes) - 1) * samples_per_shard < sum(frames)


@given(lengths, most)
def test_every_frame_comes_once_and_in_order(frames, samples_per_shard):
    order = [
        (segment.clip, segment.first_frame + offset)
        for shard in plan(frames, samples_per_shard)
        for segment in shard.segments
        for offset in range(segment.frames)
    ]
    assert order == [(f"clip {number}", index) for number, count in enumerate(frames) for index in range(count)]


@given(lengths, most)
def test_a_shard_has_one_segment_of_a_clip_and_files_are_numbered(frames, samples_per_shard):
    shards = plan(frames, samples_per_shard)
    assert [shard.file for shard in shards] == [f"val/val-{number:06d}.tar" for number in range(len(shards))]
    for shard in shards:
        clips = [segment.clip for segment in shard.segments]
        assert len(set(clips)) == len(clips)
        assert all(segment.frames > 0 for segment in shard.segments)
