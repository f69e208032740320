from typing import Any

import pytest
import torch
from torch import nn

from detkit.layers.norms import FrozenBatchNorm2d, SyncBatchNorm2d, group_norm, norm_layer


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_frozen_is_batch_norm_in_evaluation_gradient_included(memory_format: Any) -> None:
    torch.manual_seed(0)
    theirs, ours = nn.BatchNorm2d(5), FrozenBatchNorm2d(5)
    for value in (theirs.weight.data, theirs.bias.data, theirs.running_mean):
        value.normal_()
    theirs.running_var.uniform_(0.5, 2)
    ours.load_state_dict(theirs.state_dict())
    theirs.eval()
    x = torch.randn(2, 5, 4, 6).contiguous(memory_format=memory_format).requires_grad_()
    (expected,) = torch.autograd.grad(theirs(x).square().sum(), x)
    out = ours(x)
    assert out.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(out, theirs(x))
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), x)[0], expected)
    assert ours(x.bfloat16()).dtype == torch.bfloat16
    assert not list(ours.parameters())
    ours.overwrite = True
    torch.testing.assert_close(torch.autograd.grad(ours(x).square().sum(), x)[0], expected)
    with torch.no_grad():
        given = x.detach().clone(memory_format=torch.preserve_format)
        assert ours(given) is given
        torch.testing.assert_close(given, out)


def test_every_word_gives_a_layer_and_groups_have_two_channels() -> None:
    for name in ("frozen_bn", "bn", "gn"):
        assert norm_layer(name)(32)(torch.randn(2, 32, 3, 3)).shape == (2, 32, 3, 3)
    assert isinstance(norm_layer("sync_bn")(8), SyncBatchNorm2d)
    assert [group_norm(c).num_groups for c in (256, 64, 32, 96, 6, 3)] == [32, 32, 16, 16, 1, 1]
