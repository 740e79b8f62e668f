import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pl_distill.deploy.operations import Operator, OperatorCounter, operations, roofline_s


def test_a_product_of_matrices_by_hand():
    counter = OperatorCounter()
    with FakeTensorMode(), counter:
        torch.mm(torch.zeros(3, 4), torch.zeros(4, 5))
    product = counter.operators[-1]
    assert product == Operator(2 * 3 * 4 * 5, 4 * (3 * 4 + 4 * 5 + 3 * 5))


def test_a_view_costs_nothing_and_a_repeated_value_is_read_once():
    with FakeTensorMode():
        one = torch.zeros(1, 8)
        counter = OperatorCounter()
        with counter:
            repeated = one.expand(100, 8).t()
            assert counter.operators == []
            repeated + 0.0
    assert counter.operators == [Operator(0, 4 * (8 + 800))]


def test_an_operator_takes_the_longer_of_computing_and_moving():
    work = [Operator(operations=100, traffic=10), Operator(operations=0, traffic=50)]
    assert operations(work) == 100
    assert roofline_s(work, flops_per_s=10, bytes_per_s=5) == pytest.approx(100 / 10 + 50 / 5)
