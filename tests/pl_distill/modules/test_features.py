"""What student and teacher say about a batch."""

import torch

from pl_distill.modules.features import Features


def test_the_first_images_of_half_precision_levels_bring_no_copy_of_the_batch():
    ours = [torch.rand(3, 2, 2, 2, dtype=torch.bfloat16, requires_grad=True) for _ in range(6)]
    theirs = [torch.rand(3, 2, 2, 2, dtype=torch.bfloat16) for _ in range(6)]
    features = Features(None, None, ours, theirs)
    first = features.first(2)
    for (mine, its), student, teacher in zip(first, ours, theirs, strict=True):
        assert mine.shape == its.shape == (2, 2, 2, 2)
        assert not mine.requires_grad
        assert mine.untyped_storage().data_ptr() == student.untyped_storage().data_ptr()
        assert its.untyped_storage().data_ptr() == teacher.untyped_storage().data_ptr()
    whole = [(mine[:2], its[:2]) for mine, its in features.compared]
    assert all(
        torch.equal(a.float(), b) for one, two in zip(first, whole, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_the_first_images_of_a_student_with_a_map_are_its_maps():
    student, teacher = torch.rand(3, 2, 2, 2), torch.rand(3, 2, 2, 2)
    ((mine, its),) = Features(student, teacher, [student], [teacher]).first(1)
    assert torch.equal(mine, student[:1])
    assert torch.equal(its, teacher[:1])
