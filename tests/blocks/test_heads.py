"""Heads: pools, losses and scales against formulas written out from the facts."""

import math

import pytest
import torch

import agblocks
from agblocks.heads.contacts import ContactHead
from agblocks.heads.scalar import ScalarHead
from agblocks.heads.tracks import TrackHead

NAN = float("nan")


def plain(**args):
    """A scalar head that is its pool and one linear layer."""
    return ScalarHead(3, norm="none", **args).double().eval()


X = torch.randn(2, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("where", ["start", "end"])
@pytest.mark.parametrize(
    ("pool", "window", "positions"),
    [
        ("mean", None, slice(0, 6)),
        ("mean", 3, slice(1, 4)),
        ("mean", 9, slice(0, 6)),
        ("sum", 2, slice(2, 4)),
        ("max", None, slice(0, 6)),
        ("center", None, slice(3, 4)),
        ("center", 4, slice(1, 5)),
    ],
)
def test_pools(pool, window, positions, where):
    head = plain(pool=pool, window=window, pool_at=where, targets=2)
    linear = head.layers[-1]
    h = X[:, :, positions].transpose(1, 2)
    reduce = {"mean": lambda h: h.mean(1), "sum": lambda h: h.sum(1), "max": lambda h: h.amax(1)}
    pooled = reduce.get(pool, reduce["mean"])
    wanted = linear(pooled(h)) if where == "start" else pooled(linear(h))
    torch.testing.assert_close(head(X), wanted, rtol=0, atol=1e-12)


def test_attention_pool():
    head = plain(pool="attention")
    weights = torch.softmax(torch.einsum("c,bcl->bl", head.score.weight[0], X), -1)
    wanted = head.layers[-1](torch.einsum("bl,bcl->bc", weights, X))
    torch.testing.assert_close(head(X), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pool", ["mean", "sum", "max", "center", "attention"])
@pytest.mark.parametrize("where", ["start", "end"])
def test_no_pool_is_bound_to_a_length(pool, where):
    head = ScalarHead(3, pool=pool, pool_at=where, hidden=[4], window=5, hidden_norm="batch", dropout=0.1).eval()
    for length in (1, 4, 5, 31):
        assert head(torch.randn(2, 3, length)).shape == (2, 1)


def test_flat_keeps_the_order_of_positions():
    head = ScalarHead(3, 6, pool="flatten", norm="none").double()
    wanted = X.transpose(1, 2).reshape(2, 18) @ head.layers[-1].weight.T + head.layers[-1].bias
    torch.testing.assert_close(head(X), wanted)
    assert ScalarHead(3, 6, pool="flatten", norm_at="pooled").norm.norm.channels == 18


def test_flat_is_bound_to_a_length_that_the_recipe_states():
    recipe = {
        "recipe": 1, "name": "t", "inputs": {"dna": "B 4 L"}, "nodes": {},
        "heads": {"y": {"block": "head.scalar", "in": "dna", "args": {"pool": "flatten"}}},
    }  # fmt: skip
    with pytest.raises(agblocks.RecipeError, match="bound to one length"):
        agblocks.build(recipe)
    model = agblocks.build({**recipe, "inputs": {"dna": "B 4 249"}})
    assert model(dna=torch.randn(2, 4, 249))["y"].shape == (2, 1)


def test_the_published_mpra_head_has_its_parameters():
    """AlphaGenome's: 1536 channels, 3 positions of a 281-bp construct, 1024 hidden units; about 4.72 million."""
    head = ScalarHead(1536, 3, pool="flatten", hidden=[1024])
    assert sum(p.numel() for p in head.parameters()) == 2 * 1536 + (3 * 1536 + 1) * 1024 + 1025
    enformer = ScalarHead(1536, 3, pool="flatten", hidden=[512, 512], norm_at="pooled")
    assert sum(p.numel() for p in enformer.parameters()) == 2_632_193


def scalar_loss(head, prediction, target, mask=None):
    prediction = torch.tensor(prediction, dtype=torch.float64, requires_grad=True)
    loss = head.loss({"out": prediction}, torch.tensor(target, dtype=torch.float64), mask)
    loss.backward()
    return loss.item(), prediction.grad


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("mse", lambda p, t: (p - t) ** 2),
        ("huber", lambda p, t: 0.5 * (p - t) ** 2 if abs(p - t) < 1 else abs(p - t) - 0.5),
        ("poisson", lambda p, t: p - t * math.log(p + 1e-7) - t + t * math.log(t + 1e-7)),
    ],
)
def test_scalar_losses_leave_out_what_is_not_there(name, error):
    head = ScalarHead(3, targets=2, loss=name)
    loss, grad = scalar_loss(head, [[1.0, 2.0], [4.0, 5.0]], [[1.5, NAN], [0.5, 7.0]])
    assert loss == pytest.approx((error(1.0, 1.5) + error(4.0, 0.5) + error(5.0, 7.0)) / 3)
    assert grad[0, 1] == 0
    assert torch.isfinite(grad).all()
    mask = torch.tensor([[True, True], [False, True]])
    loss, grad = scalar_loss(head, [[1.0, 2.0], [4.0, 5.0]], [[1.5, NAN], [0.5, 7.0]], mask)
    assert loss == pytest.approx((error(1.0, 1.5) + error(5.0, 7.0)) / 2)
    assert grad[1, 0] == 0
    assert scalar_loss(head, [[1.0, 2.0]], [[NAN, NAN]])[0] == 0


def test_a_poisson_head_is_positive():
    head = ScalarHead(3, loss="poisson")
    assert (head(torch.randn(50, 3, 4) * 10) > 0).all()


# Tracks


def tracks(**args):
    torch.manual_seed(0)
    head = TrackHead(3, tracks=2, **args).double()
    torch.nn.init.normal_(head.linear.bias)
    torch.nn.init.normal_(head.scale)
    head.track_means.uniform_(0.5, 2)
    return head


@pytest.mark.parametrize("squash", [False, True])
def test_track_scales(squash):
    head = tracks(squash=squash, resolution=128)
    x, organism = X * 20, torch.tensor([1, 0])
    out, scaled, unit, _ = head(x, organism)
    for row, o in enumerate(organism):
        for t in range(2):
            mean = head.track_means[o, t].item()
            assert unit[row, t].item() == pytest.approx(mean * 128)
            for i in range(6):
                z = (head.linear.weight[o, t] @ x[row, :, i] + head.linear.bias[o, t]).item()
                y = math.log1p(math.exp(-abs(z))) + max(z, 0)
                y *= math.log1p(math.exp(head.scale[o, t].item()))
                assert scaled[row, t, i].item() == pytest.approx(y)
                e = y if y <= 10 else (y + 10) ** 2 / 40
                e = e ** (1 / 0.75) if squash else e
                assert out[row, t, i].item() == pytest.approx(e * mean * 128)
    assert (scaled > 10).any(), "both branches are seen"
    assert (scaled < 10).any()
    torch.testing.assert_close(head.model_scale(out, unit), scaled, rtol=1e-6, atol=1e-6)


def poisson(t, p):
    return p - t * math.log(p + 1e-7) - (t - t * math.log(t + 1e-7))


def track_loss(head, target, prediction, mask=None):
    """Section 9 of the facts, in loops. Returns the loss over targets on the model's scale."""
    bins = 2**17 // head.resolution
    counts, places = [], []
    for b in range(target.shape[0]):
        for t in range(target.shape[1]):
            for start in range(0, target.shape[2], bins):
                at = [
                    i for i in range(start, min(start + bins, target.shape[2]))
                    if not math.isnan(target[b, t, i]) and (mask is None or mask[b, t, i])
                ]  # fmt: skip
                if not at:
                    continue
                total = sum(prediction[b, t, i].item() for i in at)
                counts.append(poisson(sum(target[b, t, i].item() for i in at), total))
                places += [
                    -target[b, t, i].item() * math.log(prediction[b, t, i].item() / (total + 1e-7) + 1e-7) for i in at
                ]
    return sum(counts) / len(counts) / bins + 5.0 * sum(places) / len(places)


@pytest.mark.parametrize("length", [4, 8, 6])
def test_track_loss(length):
    head = tracks(resolution=2**15)  # segments of four bins
    head.track_means.fill_(1 / 2**15)
    prediction = torch.rand(2, 2, length, dtype=torch.float64) * 3 + 0.1
    target = torch.rand(2, 2, length, dtype=torch.float64) * 5
    unit = torch.ones(2, 2, dtype=torch.float64)
    target[0, 1, 2] = NAN
    outputs = {"scaled": prediction, "unit": unit, "real": torch.ones(2, 2, dtype=torch.bool)}
    assert head.loss(outputs, target).item() == pytest.approx(track_loss(head, target, prediction), rel=1e-6)
    mask = torch.rand(2, 2, length) > 0.4
    assert head.loss(outputs, target, mask).item() == pytest.approx(
        track_loss(head, target, prediction, mask), rel=1e-6
    )


def test_segments_are_of_131072_bases():
    assert TrackHead(3, tracks=1).bins == 131_072
    assert TrackHead(3, tracks=1, resolution=128).bins == 1_024


def test_track_targets_are_brought_to_the_models_scale():
    head = tracks(squash=True, resolution=128)
    out, scaled, unit, real = head(X * 20, torch.tensor([1, 0]))
    exact = head.loss({"scaled": scaled, "unit": unit, "real": real}, out.detach())
    off = head.loss({"scaled": scaled * 1.5, "unit": unit, "real": real}, out.detach())
    assert exact < off
    assert head.loss_ports == ("scaled", "unit", "real")


def test_track_loss_has_finite_gradients_where_targets_are_missing_or_zero():
    head = tracks(squash=True)
    _, scaled, unit, real = head(X, torch.tensor([1, 0]))
    target = torch.zeros(2, 2, 6, dtype=torch.float64)
    target[0] = NAN
    head.loss({"scaled": scaled, "unit": unit, "real": real}, target).backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_contacts():
    head = ContactHead(4, tracks=3).double()
    torch.nn.init.normal_(head.linear.bias)
    x, organism = torch.randn(2, 5, 5, 4, dtype=torch.float64), torch.tensor([1, 0])
    out, real = head(x, organism)
    for row, o in enumerate(organism):
        wanted = x[row] @ head.linear.weight[o].T + head.linear.bias[o]
        torch.testing.assert_close(out[row], wanted, rtol=0, atol=1e-12)
    target = torch.zeros_like(out)
    target[0] = NAN
    assert head.loss({"out": out, "real": real}, target).item() == pytest.approx(out[1].square().mean().item())


def test_tracks_that_fill_up_do_not_count():
    head = tracks(real=[2, 1])
    _, scaled, unit, real = head(X, torch.tensor([1, 0]))
    assert real.tolist() == [[True, False], [True, True]]
    target = torch.rand(2, 2, 6, dtype=torch.float64)
    holed = target.clone()
    holed[0, 1] = NAN
    outputs = {"scaled": scaled, "unit": unit, "real": real}
    everything = {**outputs, "real": torch.ones_like(real)}
    assert head.loss(outputs, target) == head.loss(everything, holed) != head.loss(everything, target)
    contacts = ContactHead(4, tracks=2, real=[2, 1]).double()
    out, real = contacts(torch.randn(2, 3, 3, 4, dtype=torch.float64), torch.tensor([1, 0]))
    target = torch.zeros_like(out)
    counted = [out[0, ..., :1].flatten(), out[1].flatten()]
    wanted = torch.cat(counted).square().mean().item()
    assert contacts.loss({"out": out, "real": real}, target).item() == pytest.approx(wanted)
    with pytest.raises(agblocks.errors.Misfit, match="'real' is"):
        TrackHead.check(real=[3, 1], organisms=2, tracks=2)


def test_losses_and_large_values_in_half_precision():
    out = torch.full((1, 2, 2, 2), 300.0, dtype=torch.float16)
    assert ContactHead(4, tracks=2).loss({"out": out, "real": torch.ones(1, 2)}, torch.zeros(1, 2, 2, 2)) == 90_000
    assert ScalarHead(4).loss({"out": out[0, 0]}, torch.zeros(2, 2)) == 90_000
    large = TrackHead(2, tracks=1).experimental(torch.full((1, 1, 1), 300.0, dtype=torch.float16), torch.ones(1, 1))
    assert large == 2402
