import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox

from pl_distill.evaluation.record_looks import Looks, draw_embeddings, principal_plane


def test_the_plane_is_the_one_of_most_variance():
    vectors = np.zeros((4, 5), np.float32)
    vectors[:, 3] = (7, -1, 7, -1)  # about a mean of 3: variance 16
    vectors[:, 1] = (2, 2, -2, -2)  # variance 4
    places, shares = principal_plane(vectors)
    assert shares == pytest.approx([0.8, 0.2])
    assert np.abs(places) == pytest.approx(np.tile([4.0, 2.0], (4, 1)))


def test_one_embedding_has_a_place():
    places, shares = principal_plane(np.ones((1, 3), np.float32))
    assert places.tolist() == [[0, 0]]
    assert shares.tolist() == [0, 0]


def test_animals_have_a_colour_each_and_pictures_that_do_not_hide_each_other(tmp_path, monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **how: (figures.append(figure), save(figure, *a, **how)))
    rng = np.random.default_rng(0)
    names = [f"animal-{number:02d}" for number in range(25) for _ in range(4)]
    centres = np.repeat(rng.normal(size=(25, 8)), 4, axis=0)
    vectors = (centres + 0.05 * rng.normal(size=(100, 8))).astype(np.float32)
    picture = np.full((60, 96, 3), 90, np.uint8)
    looks = Looks(vectors, names, np.zeros(100), [None] * 4 + [picture] * 96)
    draw_embeddings(tmp_path / "embeddings.png", looks, ["animal-24"])
    (axes,) = figures[0].axes
    told = [text.get_text() for text in axes.get_legend().get_texts()]
    assert told == ["5 others", *names[:76:4], "animal-24"]  # the first ones, and who was asked for
    colours = [tuple(dots.get_facecolor()[0]) for dots in axes.collections]
    assert len(set(colours)) == 21
    framed = [artist.get_window_extent() for artist in axes.artists if isinstance(artist, AnnotationBbox)]
    assert 3 <= len(framed) <= 12
    assert not any(one.overlaps(other) for n, one in enumerate(framed) for other in framed[:n])
    assert "% of the variance" in axes.get_xlabel()
