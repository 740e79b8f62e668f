import numpy as np

from datamodules.own_frame import OWN_FRAME, own_frame_of

SIZE = {"fps": 5.0, "width": 200, "height": 100, "reach": 3}


def describe(frame, animal, lies):
    values = own_frame_of(
        np.array(frame, np.int32), np.array(animal, np.int32), np.array(lies, np.float32).reshape(-1, 6), **SIZE
    )
    assert values.shape == (len(frame), len(OWN_FRAME))
    return {name: values[:, column] for column, name in enumerate(OWN_FRAME)}


def lie(x, y, angle_deg=0.0, slimness=0.0):
    return (x, y, 20, 10, np.radians(angle_deg), slimness)


def test_the_slimmer_end_is_the_head():
    seen = describe([0], [0], [lie(100, 50, 90, 0.2)])
    np.testing.assert_allclose((seen["facing_x"][0], seen["facing_y"][0]), (0, 1), atol=1e-6)
    np.testing.assert_allclose((seen["head_x"][0], seen["head_y"][0]), (0, 0.2), atol=1e-6)  # 10 pixels down of 50
    np.testing.assert_allclose((seen["slenderness"][0], seen["certainty"][0]), (0.5, 0.2), atol=1e-6)


def test_one_mask_that_is_slimmer_at_the_wrong_end_is_outvoted():
    seen = describe(range(5), [0] * 5, [lie(100, 50, 180 * (n == 2), 0.1) for n in range(5)])
    np.testing.assert_allclose(seen["facing_x"], 1, atol=1e-6)
    np.testing.assert_allclose(seen["turn"], 0, atol=1e-6)


def test_whoever_goes_does_so_head_first():
    seen = describe(range(5), [0] * 5, [lie(100 - 4 * n, 50, 0, 0.1) for n in range(5)])
    np.testing.assert_allclose(seen["facing_x"], -1, atol=1e-6)
    np.testing.assert_allclose(seen["ahead_speed"], 1, atol=1e-6)  # 4 pixels a frame, 5 frames a second, 20 a body
    np.testing.assert_allclose(seen["side_speed"], 0, atol=1e-6)


def test_a_sidestep_to_the_right_and_a_clockwise_turn_are_positive():
    seen = describe(range(3), [0] * 3, [lie(100, 50 + 2 * n, 10 * n, 0.3) for n in range(3)])
    assert (seen["side_speed"] > 0.3).all()
    np.testing.assert_allclose(seen["turn"], np.radians(10) * 5, rtol=1e-5)


def test_snout_to_snout():
    """Two animals face each other, 2 pixels between their heads; a third is in another frame."""
    seen = describe([0, 0, 1], [0, 1, 2], [lie(50, 50, 0, 0.3), lie(72, 50, 180, 0.3), lie(60, 50, 0, 0.3)])
    np.testing.assert_allclose(seen["head_distance"], (0.1, 0.1, 2), atol=1e-6)
    np.testing.assert_allclose(seen["head_ahead"], (0.1, 0.1, 0), atol=1e-6)
    np.testing.assert_allclose(seen["head_facing"], (-1, -1, 0), atol=1e-6)
    np.testing.assert_allclose(seen["neck_ahead"][:2], 0.35, atol=1e-6)  # half of half a body farther


def test_whose_neck_is_to_the_right_is_seen_there():
    seen = describe([0, 0], [0, 1], [lie(50, 50, 0, 0.3), lie(60, 60, 0, 0.3)])
    np.testing.assert_allclose((seen["neck_ahead"][0], seen["neck_beside"][0]), (0.25, 0.5), atol=1e-6)
    assert seen["neck_beside"][1] < 0


def test_nothing_gives_nothing():
    describe([], [], [])
