import math

import torch
from torch.nn import functional as F

from pl_distill.losses.contrastive import supervised_contrastive


def test_two_pairs_by_hand():
    # Pairs point along two axes: each sample has one positive at cosine 1, and two negatives at cosine 0.
    embeddings = torch.tensor([(1.0, 0), (1, 0), (0, 1), (0, 1)])
    loss = supervised_contrastive(embeddings, torch.tensor([0, 0, 1, 1]), temperature=1.0)
    torch.testing.assert_close(loss, torch.tensor(-math.log(math.e / (math.e + 2))))


def test_confusing_the_pairs_costs_more_and_gradients_mend_it():
    torch.manual_seed(0)
    labels = torch.arange(4).repeat_interleave(3)
    weights = torch.randn(12, 8, requires_grad=True)
    first = supervised_contrastive(F.normalize(weights, dim=1), labels)
    for _ in range(30):
        loss = supervised_contrastive(F.normalize(weights, dim=1), labels)
        (gradient,) = torch.autograd.grad(loss, weights)
        weights = (weights - 0.5 * gradient).detach().requires_grad_()
    assert loss < 0.8 * first


def test_an_animal_seen_once_is_a_negative_only():
    embeddings = F.normalize(torch.randn(3, 4, generator=torch.manual_seed(0)), dim=1)
    both = supervised_contrastive(embeddings, torch.tensor([0, 0, 1]))
    assert torch.isfinite(both)
    assert both > supervised_contrastive(embeddings[:2], torch.tensor([0, 0]))
    assert supervised_contrastive(embeddings, torch.arange(3)) == 0


def test_only_samples_of_one_group_are_compared():
    embeddings = F.normalize(torch.randn(8, 4, generator=torch.manual_seed(0)), dim=1)
    labels, groups = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    apart = [supervised_contrastive(embeddings[at], labels[at]) for at in (groups == 0, groups == 1)]
    together = supervised_contrastive(embeddings, labels, groups=groups)
    torch.testing.assert_close(together, (apart[0] + apart[1]) / 2)
    assert supervised_contrastive(embeddings, labels) > together
