"""What merges is what acts, or is refused by name; what adapters compute on modules that are somebody else's."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

from agblocks._torchvision import mend
from agblocks.adapters import Average, Stack, adapt
from agblocks.adapters.errors import CompositionError, MergedStateError, NotMergeable, UnsupportedModule
from agblocks.layers import LayerNorm, RMSBatchNorm, StandardizedConv1d
from agblocks.testing.adapter_trial import move, outputs


def net(*modules):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = (
            nn.Sequential(*copy.deepcopy(modules))
            if modules
            else nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4))
        )
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


def test_trying_a_norm_leaves_it_as_it_is():
    class Counting(nn.BatchNorm1d):
        def forward(self, x):
            self.num_batches_tracked.add_(1)
            self.running_mean.add_(1)
            return super().forward(x)

    adapted = moved(net(nn.Conv1d(4, 8, 1), Counting(8)), "ia3:glob=1")
    before = copy.deepcopy(adapted.base[1].state_dict())
    adapted.bank.adapters("default")[0].unfoldable(adapted.base[1])
    assert all(torch.equal(v, before[k]) for k, v in adapted.base[1].state_dict().items())


@pytest.mark.parametrize("norm", [LayerNorm(8), nn.RMSNorm(8), nn.LayerNorm(8, bias=False), RMSBatchNorm(8, dim=-1)])
def test_norms_of_torch_and_ours_merge(norm):
    agrees(moved(net(nn.Linear(8, 8), norm, nn.Linear(8, 2)), "ia3:glob=1"), rows())


@pytest.mark.parametrize("kind", ["norm", "bitfit", "ia3"])
def test_a_norm_that_only_turns_its_axes_merges(kind):
    x = rows(2, 4, 9)
    agrees(moved(net(nn.Conv1d(4, 8, 1), Turned(8), nn.Conv1d(8, 2, 1)), f"{kind}:glob=1"), x)


# DoRA


BEFORE = [
    "lora:rank=2",
    "ia3",
    "bitfit",
    "condition",
    "loreft:rank=2",
    "direft:rank=2",
    "dora:rank=3",
    "ia3_ff",
    "condition:at=input",
]


def at(site, text):
    """A spec on a site."""
    kind, _, rest = text.partition(":")
    return f"{kind}:glob={site}" + (f",{rest}" if rest else "")


@pytest.mark.parametrize("before", BEFORE)
def test_dora_behind_anything_merges_to_what_it_does(before):
    adapted = moved(net(), a=at(1, before), b="dora:glob=1,rank=2").eval()
    for composed in (Stack("a", "b"), Stack(Stack("a"), "b"), Stack(Stack("b"), "a")):
        adapted.bank.activate(composed)
        agrees(adapted, rows())


def test_dora_behind_a_mean_merges_to_what_it_does():
    adapted = moved(net(), a="lora:glob=1,rank=2", b="bitfit:glob=1", c="dora:glob=1,rank=2", d="dora:glob=1,rank=1")
    for composed in (Stack(Average("a", "b"), "c"), Stack(Average("b", "c", weights=[1, 2]), "d")):
        adapted.bank.activate(composed)
        agrees(adapted, rows())


def test_nothing_is_folded_where_dora_stays():
    adapted = moved(net(), a="lora:glob=0+1,rank=2", h="houlsby:glob=1,latent=2", b="dora:glob=0+1,rank=2")
    adapted.bank.activate(Stack("a", Stack("h"), "b"))
    hooked = outputs(adapted, rows())
    done = adapted.bank.merge_(partial=True)
    assert [change.site for change in done.changes] == ["0"]
    assert "houlsby: " in done.left["1"] and "dora, which stays, reads the weight" in done.left["1"]
    assert torch.allclose(outputs(adapted, rows()), hooked, atol=1e-10)


def test_nothing_is_folded_where_dora_stays_on_a_standardised_convolution():
    model = net(nn.Conv1d(4, 8, 1), StandardizedConv1d(8, 8, 5))
    adapted = moved(model, "locon:glob=1,rank=2", "dora:glob=1,rank=2,center=false")
    hooked = outputs(adapted, rows(2, 4, 20))
    assert [*adapted.bank.merge_(partial=True).left] == ["1"]
    assert torch.allclose(outputs(adapted, rows(2, 4, 20)), hooked, atol=1e-10)


def test_what_stays_but_reads_no_weight_leaves_the_rest_to_be_folded():
    adapted = moved(net(), a="lora:glob=1,rank=2", h="houlsby:glob=1,latent=2")
    hooked = outputs(adapted, rows())
    done = adapted.bank.merge_(partial=True)
    assert [change.site for change in done.changes] == ["1"] == [*done.left]
    assert torch.allclose(outputs(adapted, rows()), hooked, atol=1e-10)


@pytest.mark.parametrize("zero", ["all", "rows", "scale"])
@pytest.mark.parametrize("init", ["kaiming", "pissa"])
def test_dora_on_rows_of_length_0_changes_nothing_trains_and_merges(zero, init):
    if zero == "scale":
        model, x = net(nn.Conv1d(4, 8, 1), StandardizedConv1d(8, 8, 5)), rows(2, 4, 9)
        model[1].scale.data[2:5] = 0
    else:
        model, x = net(), rows()
        model[1].weight.data[slice(None) if zero == "all" else slice(2, 5)] = 0
    if zero == "all" and init == "pissa":
        init = "gaussian"
    bare = outputs(model, x)
    adapted = adapt(model, [f"dora:glob=1,rank=2,init={init}"])
    assert torch.equal(outputs(adapted, x), bare)
    steps = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    for _ in range(4):
        steps.zero_grad()
        adapted(x).square().mean().backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in adapted.bank.parameters())
        steps.step()
        agrees(adapted, x)
    assert not torch.allclose(outputs(adapted, x), bare)


# Tensors of several modules


def one_tensor(model):
    model[1].weight = model[0].weight


def one_storage(model):
    model[1].weight = nn.Parameter(model[0].weight.data)


def overlapping(model):
    memory = torch.randn(68, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model[0].weight, model[1].weight = nn.Parameter(memory[:64].view(8, 8)), nn.Parameter(memory[4:].view(8, 8))


@pytest.mark.parametrize("tie", [one_tensor, one_storage, overlapping])
def test_tied_weights_stay_attached_by_name(tie):
    model = net()
    tie(model)
    adapted = moved(model, "lora:glob=1+2,rank=2")
    refused(adapted, rows(), r"1: 0\.weight and 1\.weight are one tensor")
    hooked = outputs(adapted, rows())
    done = adapted.bank.merge_(partial=True)
    assert [*done.left] == ["1"] and [change.site for change in done.changes] == ["2"]
    assert torch.allclose(outputs(adapted, rows()), hooked, atol=1e-10)
    adapted.bank.unmerge_()
    assert torch.equal(outputs(adapted, rows()), hooked)


def test_parts_of_one_storage_that_share_no_value_merge():
    model, memory = net(), torch.randn(128, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model[0].weight, model[1].weight = (nn.Parameter(part.view(8, 8)) for part in memory.chunk(2))
    agrees(moved(model, "lora:glob=0+1,rank=2"), rows())


# Hooks of others


@pytest.mark.parametrize("how", ["after", "before", "forward"])
def test_hooks_of_others_are_kept_with_a_warning(how):
    model = net()
    if how == "forward":
        plain = model[1].forward
        model[1].forward = lambda x: plain(x) * 2
    elif how == "after":
        model[1].register_forward_hook(lambda module, args, out: out * 2)
    else:
        model[1].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    adapted = moved(model, "lora:glob=1+2,rank=2")
    with pytest.warns(UserWarning, match="1 modules .* hooks that are not of these adapters, '1': they stay"):
        adapted.bank.merge_()
    adapted.bank.unmerge_()
    with pytest.warns(UserWarning, match="'1'"):
        adapted.merged()


def test_no_warning_of_our_own_hooks():
    adapted = moved(net(), "lora:glob=0+1,rank=2", "ia3_ff:glob=1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted.merged()
        adapted.bank.merge_()


# What a module reads


class Named(nn.Module):
    """A block whose second argument may come first."""

    def __init__(self, turned=False):
        super().__init__()
        self.turned, self.block = turned, Skipping()

    def forward(self, x):
        return self.block(skip=x * 0, x=x) if self.turned else self.block(x, x * 0)


class Skipping(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(8, 8)

    def forward(self, x, skip):
        return self.map(x) + skip


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("spec", ["parallel:glob=block", "condition:glob=block,at=input"])
def test_named_arguments_are_told_by_the_modules_own_order(spec, compiled):
    plain = net(Named())[0]
    adapted = moved_with_probe(plain, spec)
    wanted = outputs(adapted, rows())
    plain.turned = True
    call = torch.compile(adapted, fullgraph=True, backend="eager") if compiled else adapted
    assert torch.allclose(outputs(call, rows()), wanted, atol=1e-12)


def moved_with_probe(model, *specs, x=None):
    adapted = adapt(model, list(specs), probe=rows() if x is None else x)
    move(adapted)
    return adapted


# Means and shares of what is read


def each(adapted, composed, names, x, shares):
    """What a composition gives, and the sum of what each name would give by itself."""
    site, made = adapted.base[1], []
    with torch.no_grad():
        for name in names:
            with adapted.bank.using(name):
                made.append(site(x))
        with adapted.bank.using(composed):
            return site(x), sum(share * one for share, one in zip(shares, made, strict=True))


@pytest.mark.parametrize("kind", ["ia3_ff:glob=1", "condition:glob=1,at=input"])
@pytest.mark.parametrize("site", [nn.Linear(8, 8), nn.Conv1d(8, 8, 3, padding=1, padding_mode="reflect")])
def test_a_mean_of_inputs_is_the_mean_at_linear_sites(kind, site):
    first = nn.Linear(8, 8) if isinstance(site, nn.Linear) else nn.Conv1d(8, 8, 1)
    adapted = moved(net(first, site), a=kind, b=kind)
    given, wanted = each(adapted, Average("a", "b", weights=[1, 3]), "ab", rows(3, 8, 8), (0.25, 0.75))
    assert torch.allclose(given, wanted, atol=1e-12)


def test_a_mean_of_what_is_read_and_given_is_refused():
    for a, b in ((["ia3_ff:glob=1", "lora:glob=1,rank=2"],) * 2, (["ia3_ff:glob=1"], ["lora:glob=1,rank=2"])):
        adapted = moved(net(), a=a, b=b)
        with pytest.raises(CompositionError, match="Average at '1': some of its adapters .* names of their own"):
            adapted.bank.activate(Average("a", "b"))
    adapted = moved(net(), a="ia3_ff:glob=1", b="ia3_ff:glob=1", c="lora:glob=1,rank=2", d="lora:glob=1,rank=2")
    adapted.bank.activate(Stack(Average("a", "b"), Average("c", "d")))  # as the message says
    outputs(adapted, rows())


def test_a_mean_of_what_is_read_is_refused_where_it_is_not_the_mean():
    sites = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    adapted = net(nn.Linear(8, 8), sites)
    adapted = adapt(adapted, ["condition:glob=1,at=input"], name="a", probe=rows())
    adapted.add("b", ["condition:glob=1,at=input"], probe=rows())
    move(adapted)
    with adapted.bank.using(Average("a", "b")), pytest.raises(CompositionError, match="what a Sequential reads"):
        adapted(rows())
    adapted = moved(net(), a="ia3_ff:glob=1", b="ia3_ff:glob=1")
    twice = Average("a", "b", weights=[1, 1], normalize=False)
    with adapted.bank.using(twice), pytest.raises(CompositionError, match="add up to 2"):
        adapted(rows())
    adapted = moved(net(nn.Linear(8, 8), nn.Linear(8, 8, bias=False)), a="ia3_ff:glob=1", b="ia3_ff:glob=1")
    given, wanted = each(adapted, twice, "ab", rows(), (1, 1))
    assert torch.allclose(given, wanted, atol=1e-12)


def test_a_mean_of_what_is_given_is_the_mean_anywhere():
    model = net(nn.Linear(8, 8), nn.ReLU())
    adapted = adapt(model, ["houlsby:glob=1,latent=2"], name="a", probe=rows())
    adapted.add("b", ["ia3:glob=1"], probe=rows())
    move(adapted)
    given, wanted = each(adapted, Average("a", "b", weights=[1, 3]), "ab", rows(), (0.25, 0.75))
    assert torch.allclose(given, wanted, atol=1e-12)


@pytest.mark.parametrize("share", [0.25, -1.0, 2.0])
def test_a_share_of_what_is_read(share):
    adapted = moved(net(), "ia3_ff:glob=1")
    adapted.bank.weigh("default", share)
    factors, site = adapted.bank.adapters("default")[0].l, adapted.base[1]
    with torch.no_grad():
        wanted = F.linear(rows() * (1 + share * (factors - 1)), site.weight, site.bias)
        assert torch.allclose(site(rows()), wanted, atol=1e-12)
    agrees(adapted, rows())


def test_what_is_done_before_a_module_is_folded_from_the_module_outwards():
    adapted = moved(net(), a="condition:glob=1,at=input", b="ia3_ff:glob=1")
    shift, site = adapted.bank.adapters("a")[0].c[0], adapted.base[1]
    factors = adapted.bank.adapters("b")[0].l
    both = []
    for composed, read in (
        (Stack(Stack("a"), "b"), (rows() + shift) * factors),
        (Stack(Stack("b"), "a"), rows() * factors + shift),
    ):
        adapted.bank.activate(composed)
        with torch.no_grad():
            both.append(site(rows()))
            assert torch.allclose(both[-1], F.linear(read, site.weight, site.bias), atol=1e-12)
        agrees(adapted, rows())
    assert not torch.allclose(*both)


# What a probe shows


class Residual(nn.Module):
    """A block with its convolutions inside and whatever comes last."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x):
        return x + self.parts(x)


class Turn(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 5, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


BLOCKS = {
    "image": (lambda: Residual(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()), (2, 8, 12, 12), 8, 1),
    "track": (lambda: Residual(nn.Conv1d(8, 8, 1), nn.GELU()), (2, 8, 12), 8, 1),
    "square": (lambda: Residual(nn.Conv1d(8, 12, 1), nn.Conv1d(12, 8, 1)), (2, 8, 8), 8, 1),
    "rows": (lambda: Residual(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8)), (2, 8, 12, 8), 8, -1),
    "pooled": (lambda: nn.Sequential(nn.Conv1d(8, 16, 1), nn.MaxPool1d(2)), (2, 8, 32), 16, 1),
    "patches": (lambda: nn.Sequential(nn.Conv2d(8, 16, 2, stride=2), nn.Flatten(2), Turn()), (2, 8, 12, 12), 16, -1),
    "recurrent": (Recurrent, (2, 12, 8), 5, -1),
}


class Around(nn.Module):
    """A block that nothing says anything about, then a mean of all."""

    def __init__(self, block, before=None):
        super().__init__()
        self.before, self.block = nn.Identity() if before is None else before, block

    def forward(self, x):
        return self.block(self.before(x)).flatten(1).mean(1)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_probe_tells_channels_by_what_is_inside(name):
    make, shape, width, axis = BLOCKS[name]
    adapted = moved_with_probe(net(Around(make()))[0], "houlsby:glob=block,latent=2", x=rows(*shape))
    assert (adapted.bank.site("block").widths[1], adapted.bank.site("block").axis) == (width, axis)
    outputs(adapted, rows(*shape))


def test_a_probe_tells_channels_by_what_came_before():
    for first, axis in ((nn.Conv1d(8, 12, 1), 1), (nn.Linear(12, 12), -1)):
        adapted = moved_with_probe(net(Around(nn.ReLU(), first))[0], "ia3:glob=block", x=rows(2, 8, 12))
        assert (adapted.bank.site("block").widths, adapted.bank.site("block").axis) == ((12, 12), axis)


def test_a_probe_tells_channels_by_what_reads_them():
    """A square track, whose block turns it twice: only the next module says where the channels are."""
    for last, axis in ((nn.Conv1d(8, 3, 1), 1), (nn.Linear(8, 3), -1)):
        first = nn.Sequential(nn.Linear(8, 8), Turn())
        model = net(nn.Sequential(first, nn.Identity(), last))[0]
        adapted = moved_with_probe(model, "houlsby:glob=0,latent=2", x=rows(2, 8, 8))
        assert (adapted.bank.site("0").widths, adapted.bank.site("0").axis) == ((8, 8), axis)


def test_a_probe_that_leaves_channels_open_is_refused():
    for block in (nn.ReLU(), nn.Sequential(nn.Conv1d(8, 6, 1), nn.Upsample(scale_factor=2), Turn(), Turn(), Fold())):
        model = net(Around(block))[0]
        with pytest.raises(UnsupportedModule, match=r"it gives \[2, .*which of that are its channels; aim at"):
            adapt(model, ["houlsby:glob=block,latent=2"], probe=rows(2, 8, 12))


def test_a_probe_that_passes_a_module_by_says_so():
    model = net(Around(nn.ReLU()))[0]
    model.spare = nn.ReLU()
    with pytest.raises(UnsupportedModule, match="'spare'.* the probe, .* never calls it"):
        adapt(model, ["houlsby:glob=spare,latent=2"], probe=rows(2, 8, 12))


class Fold(nn.Module):
    def forward(self, x):
        return x.reshape(len(x), 3, -1)


def test_a_probe_tells_what_a_module_reads():
    block = nn.Sequential(nn.Conv1d(8, 16, 1), nn.ReLU())
    adapted = moved_with_probe(net(Around(block))[0], "parallel:glob=block", x=rows(2, 8, 12))
    assert adapted.bank.site("block").widths == (8, 16)


def test_resnet_with_a_square_probe():
    mend()
    import timm

    model = timm.create_model("resnet10t", num_classes=3).double().eval()
    x = rows(1, 3, 96, 96)
    adapted = adapt(model, ["houlsby:glob=layer1.0"], probe=x)
    assert (adapted.bank.site("layer1.0").widths, adapted.bank.site("layer1.0").axis) == ((64, 64), 1)
    outputs(adapted, rows(1, 3, 64, 64))


# What a module overwrites


def test_a_path_beside_a_module_that_overwrites_its_input_is_refused():
    class Late(nn.Module):
        def __init__(self, inplace):
            super().__init__()
            self.map, self.act = nn.Linear(8, 8), nn.ReLU(inplace)

        def forward(self, x):
            return self.map(self.act(x))

    first = nn.Sequential(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 8)))
    with pytest.raises(UnsupportedModule, match="'block'.*it overwrites what it reads"):
        adapt(net(Around(first, nn.Linear(8, 8)))[0], ["parallel:glob=block"], probe=rows())
    model = net(Around(Late(True), nn.Linear(8, 8)))[0]
    bare = outputs(model, rows())
    with pytest.raises(UnsupportedModule, match="'block': it overwrites what it reads.*inplace=False"):
        adapt(model, ["parallel:glob=block"], probe=rows())
    assert torch.equal(outputs(model, rows()), bare) and not model.block._forward_hooks
    moved_with_probe(net(Around(Late(False), nn.Linear(8, 8)))[0], "parallel:glob=block")
    later = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8))
    moved_with_probe(net(Around(later, nn.Linear(8, 8)))[0], "parallel:glob=block")


# Dropout


def test_dropout_at_embeddings_drops_what_is_added():
    adapted = moved(net(nn.Embedding(10, 400)), "lora:glob=0,rank=2,dropout=0.25")
    letters, bare = torch.arange(10), adapted.base[0].weight.detach()
    full = outputs(adapted, letters) - bare
    torch.manual_seed(0)
    dropped = outputs(adapted.train(), letters) - bare
    kept = dropped.abs() > 1e-12
    assert 0.65 < kept.double().mean() < 0.85
    assert torch.allclose(dropped[kept], full[kept] / 0.75)


def test_other_weights_are_not_loaded_while_adapters_are_merged():
    """Loaded over merged weights, a base would be merged where the file is silent and bare elsewhere."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    adapted = adapt(model, ["lora:glob=0,rank=2"])
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    adapted.bank.merge_()
    with pytest.raises(MergedStateError, match="unmerge_"):
        model.load_state_dict(kept)
    twin = copy.deepcopy(adapted)
    with pytest.raises(MergedStateError, match="unmerge_"):
        twin.base.load_state_dict(kept)
    adapted.bank.unmerge_()
    model.load_state_dict(kept)
    twin.bank.unmerge_()
    twin.base.load_state_dict(kept)
    adapted.merged().load_state_dict(kept)
