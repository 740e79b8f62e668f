import torch
from torch import nn

from pl_distill.modules.parameter_groups import parameter_groups
from tests.pl_distill.modules.distilling import build


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_biases = nn.Parameter(torch.zeros(2, 4))
        self.project = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_norms_biases_and_tables_do_not_decay():
    decayed, free = parameter_groups(network := Attention())
    assert "weight_decay" not in decayed
    assert free["weight_decay"] == 0
    assert [id(one) for one in decayed["params"]] == [id(network.project.weight)]
    expected = (network.attention_biases, network.project.bias, network.norm.weight, network.norm.bias)
    assert [id(one) for one in free["params"]] == [id(one) for one in expected]


def test_the_students_tables_are_called_so(teacher):
    module = build(teacher)
    module.configure_model()
    decayed, free = parameter_groups(module.student)
    names = {id(parameter): name for name, parameter in module.student.named_parameters()}
    assert "weight_decay" not in decayed
    assert free["weight_decay"] == 0
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    free_names = {names[id(parameter)] for parameter in free["params"]}
    assert {"head.1.bias", "laterals.0.1.weight", "body.stages.1.blocks.0.attn.attention_biases"} <= free_names
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
