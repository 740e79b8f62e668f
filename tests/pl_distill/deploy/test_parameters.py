import pytest

from pl_distill.commands.parsing import find_recipe
from pl_distill.deploy.budget import _parts
from pl_distill.deploy.parameters import definitions
from pl_distill.deploy.recipe import read_recipe


@pytest.fixture(scope="module")
def parts():
    return _parts(read_recipe(find_recipe("distill/edinburgh.yaml")))


def test_the_real_systems_by_part(parts):
    teacher, student = ({part.name: part.parameters for part in side} for side in parts.values())
    assert teacher["trunk"] == 446_236_672
    assert teacher["necks of detector and tracker"] == 2 * 7_802_112
    assert sum(teacher.values()) - teacher["embedder"] == 859_921_848
    assert student["student without necks"] + student["necks of detector and tracker"] == 40_621_360
    assert teacher["embedder"] == student["embedder"] == 21_586_944


def test_every_definition_of_the_papers_figures(parts):
    found = {one.name: one for one in definitions(parts["teacher"], parts["student"])}
    assert found["backbone"].ratio == pytest.approx(10.985, abs=1e-3)
    assert found["system, as the paper's 7.77"].ratio == pytest.approx(7.771, abs=1e-3)
    assert found["deployed"].student / 1e6 == pytest.approx(76.9, abs=0.05)
    assert found["deployed with embedder"].student / 1e6 == pytest.approx(98.5, abs=0.05)
    assert found["deployed"].teacher == 859_921_848
