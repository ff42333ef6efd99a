"""What merges is what acts, or is refused by name; what adapters compute on modules that are somebody else's."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

from agblocks.adapters import adapt
from agblocks.adapters.errors import NotMergeable
from agblocks.layers import LayerNorm, RMSBatchNorm
from agblocks.testing.adapter_trial import move, outputs


def net(*modules):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = nn.Sequential(*modules) if modules else nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4))
        for part in made.modules():
            if modules and hasattr(part, "reset_parameters"):
                part.reset_parameters()
    return made.double().eval()


def rows(*shape):
    return torch.randn(*(shape or (3, 5, 8)), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def moved(model, *specs, **names):
    """Adapters of one name, or of several given by name, as if they were trained."""
    adapted = adapt(model, list(specs) or None, name="default") if specs else None
    for name, several in names.items():
        several = [several] if isinstance(several, str) else several
        adapted = adapt(model, several, name=name) if adapted is None else adapted.add(name, several)
    move(adapted)
    return adapted


def agrees(adapted, x):
    assert torch.allclose(outputs(adapted, x), outputs(adapted.merged(), x), atol=1e-10)


def refused(adapted, x, why):
    """Merging is refused for a reason, and nothing has changed."""
    before, hooked = copy.deepcopy(adapted.base.state_dict()), outputs(adapted, x)
    with pytest.raises(NotMergeable, match=why):
        adapted.bank.merge_()
    assert torch.equal(outputs(adapted, x), hooked)
    assert all(torch.equal(v, before[k]) for k, v in adapted.base.state_dict().items())


# Weights that are worked out


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["lora:glob=1,rank=2", "dora:glob=1,rank=2", "ia3:glob=1", "bitfit:glob=1"])
@pytest.mark.parametrize(
    "worked_out",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda m: prune.l1_unstructured(m, "weight", amount=0.3),
    ],
)
def test_computed_weights_are_adapted_but_not_merged(worked_out, kind):
    model = net()
    worked_out(model[1])
    model(rows())
    bare = outputs(model, rows())
    adapted = moved(model, kind)
    assert not torch.allclose(outputs(adapted, rows()), bare)
    refused(adapted, rows(), "1: .*its weight is no parameter of its own.*take those off first")


def test_a_computed_bias_is_not_merged_into():
    class Halved(nn.Module):
        def forward(self, bias):
            return bias / 2

    model = net()
    nn.utils.parametrize.register_parametrization(model[1], "bias", Halved())
    refused(moved(model, "bitfit:glob=1"), rows(), "its bias is no parameter of its own")


def test_an_embedding_that_cuts_its_rows_is_not_merged_into():
    letters = torch.arange(10)
    for options, merges in (({"max_norm": 0.5}, False), ({"scale_grad_by_freq": True}, True), ({"sparse": True}, True)):
        adapted = moved(net(nn.Embedding(10, 8, **options), nn.Linear(8, 2)), "lora:glob=0,rank=2")
        outputs(adapted, letters)  # a first call cuts the rows
        agrees(adapted, letters) if merges else refused(adapted, letters, "max_norm")


# Norms with a forward of their own


class Activated(nn.BatchNorm1d):
    def forward(self, x):
        return torch.relu(super().forward(x))


class OnePlus(nn.LayerNorm):
    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, 1 + self.weight, self.bias)


class Turned(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize("norm", [Activated, OnePlus])
@pytest.mark.parametrize("kind", ["norm", "bitfit", "ia3"])
def test_norms_that_do_more_are_adapted_but_not_merged(norm, kind):
    adapted = moved(net(nn.Linear(8, 8), norm(8), nn.Linear(8, 2)), f"{kind}:glob=1")
    refused(adapted, rows(5, 8), f"1: {kind}: {norm.__name__} does more with its weight")


@pytest.mark.parametrize("norm", [LayerNorm(8), nn.RMSNorm(8), nn.LayerNorm(8, bias=False), RMSBatchNorm(8, dim=-1)])
def test_norms_of_torch_and_ours_merge(norm):
    agrees(moved(net(nn.Linear(8, 8), norm, nn.Linear(8, 2)), "ia3:glob=1"), rows())


@pytest.mark.parametrize("kind", ["norm", "bitfit", "ia3"])
def test_a_norm_that_only_turns_its_axes_merges(kind):
    x = rows(2, 4, 9)
    agrees(moved(net(nn.Conv1d(4, 8, 1), Turned(8), nn.Conv1d(8, 2, 1)), f"{kind}:glob=1"), x)
