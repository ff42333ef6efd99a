"""Splice-site heads against formulas written out from the facts, loop by loop."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agblocks.errors import Misfit
from agblocks.heads.junctions import SpliceJunctionHead
from agblocks.heads.splicing import SpliceSiteHead, SpliceUsageHead
from agblocks.layers import RealTracks, sum_pool

sys.path.insert(0, str(Path(__file__).parents[1] / "layers"))

import naive

ORGANISM = torch.tensor([1, 0])
NAN = float("nan")


def drawn(head):
    torch.manual_seed(1)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return head.double().eval()


def test_splice_sites():
    head, x = drawn(SpliceSiteHead(3)), torch.randn(2, 3, 7, dtype=torch.float64)
    out, logits = head(x, ORGANISM)
    for row, o in enumerate(ORGANISM):
        wanted = head.linear.weight[o] @ x[row] + head.linear.bias[o][:, None]
        torch.testing.assert_close(logits[row], wanted)
        torch.testing.assert_close(out[row], wanted.exp() / wanted.exp().sum(0))


def test_positions_without_a_label_do_not_count():
    head = SpliceSiteHead(3)
    logits = torch.randn(1, 5, 4, dtype=torch.float64)
    target = torch.zeros(1, 5, 4, dtype=torch.float64)
    target[0, 2, 1] = target[0, 4, 3] = 1
    share = logits.log_softmax(1)
    wanted = -(share[0, 2, 1] + share[0, 4, 3]).item() / 2
    assert head.loss({"logits": logits}, target).item() == pytest.approx(wanted, rel=1e-6)
    target[0, 0, 3] = NAN
    assert head.loss({"logits": logits}, target).item() == pytest.approx(-share[0, 2, 1].item(), rel=1e-6)
    assert head.loss({"logits": logits}, torch.zeros_like(target)).item() == 0
    smooth = head.loss({"logits": logits.float() * 0 + torch.tensor([0, -1e4, 0, 0, 0])[None, :, None]}, target)
    assert torch.isfinite(smooth), "labels are smoothed"


def test_usage():
    head, x = drawn(SpliceUsageHead(3, tracks=4, real=[4, 2])), torch.randn(2, 3, 7, dtype=torch.float64)
    out, logits, real = head(x, ORGANISM)
    assert real.tolist() == [[True, True, False, False], [True] * 4]
    torch.testing.assert_close(out, 1 / (1 + torch.exp(-logits)))
    target = torch.rand(2, 4, 7, dtype=torch.float64)
    target[1, 3, 2] = NAN
    terms = []
    for b in range(2):
        for t in range(4):
            for i in range(7):
                if real[b, t] and not math.isnan(target[b, t, i]):
                    p, y = out[b, t, i].item(), target[b, t, i].item()
                    terms.append(-y * math.log(p) - (1 - y) * math.log(1 - p))
    found = head.loss({"logits": logits, "real": real}, target).item()
    assert found == pytest.approx(sum(terms) / len(terms))
    ends = torch.tensor([0.0, 1.0, -3.0, 9.0]).expand(2, 1, 4).repeat(1, 4, 1)
    clipped = head.loss({"logits": torch.zeros(2, 4, 4), "real": real}, ends)
    assert clipped.item() == pytest.approx(math.log(2), rel=1e-6)


def junctions(**args):
    return drawn(SpliceJunctionHead(3, 5, **{"tissues": 3, "candidates": 4, "channels": 6, "real": [3, 2], **args}))


def turned(u, position):
    """One vector by one position, with the frequencies of a million positions."""
    n, y = len(u) // 2, np.empty_like(u)
    steps = np.geomspace(1, 2**20 - n + 1, n)
    for f in range(n):
        angle = position / (f + steps[f])
        a, b = u[2 * f], u[2 * f + 1]
        y[2 * f : 2 * f + 2] = a * math.cos(angle) - b * math.sin(angle), b * math.cos(angle) + a * math.sin(angle)
    return y


def test_junctions():
    head, length = junctions(), 60
    x, probabilities = torch.randn(2, 3, length, dtype=torch.float64), torch.rand(2, 5, length, dtype=torch.float64)
    positions = torch.tensor([[[3, 9, 41, -1], [0, 5, 58, 59], [7, 8, -1, -1], [1, 2, 3, 4]]]).repeat(2, 1, 1)
    out, used, _ = head(x, ORGANISM, probabilities, positions)
    assert torch.equal(used, positions)
    names = [("pos_donor", "pos_acceptor"), ("neg_donor", "neg_acceptor")]
    for b, o in enumerate(ORGANISM.tolist()):
        weight, bias = naive.array(head.linear.weight[o]), naive.array(head.linear.bias[o])
        z = weight @ naive.array(x[b]) + bias[:, None]
        for s, pair in enumerate(names):
            for d, a, t in np.ndindex(4, 4, 3):
                ends = positions[b, 2 * s, d].item(), positions[b, 2 * s + 1, a].item()
                found = out[b, d, a, 3 * s + t].item()
                if min(ends) < 0 or t >= (3, 2)[o]:
                    assert found == 0
                    continue
                sides = []
                for name, end in zip(pair, ends, strict=True):
                    scale, offset = naive.array(getattr(head, name))[o, :, t]
                    sides.append(turned(scale * z[:, end] + offset, end))
                assert found == pytest.approx(math.log1p(math.exp(sides[0] @ sides[1])), rel=1e-9)


def test_candidates():
    head = junctions(threshold=0.4)
    probabilities = torch.zeros(1, 5, 9)
    probabilities[0, 0, [7, 2, 5]] = torch.tensor([0.9, 0.5, 0.39])
    probabilities[0, 1] = torch.tensor([0.41, 0.9, 0.42, 0.8, 0.43, 0.7, 0.44, 0.6, 0.45])
    probabilities[0, 2, 3] = 0.4  # reaches it
    probabilities[0, 4] = 1  # no site
    found = head.likeliest(probabilities)
    assert found.tolist() == [[[2, 7, -1, -1], [1, 3, 5, 7], [3, -1, -1, -1], [-1, -1, -1, -1]]]
    assert found.dtype == torch.int64
    assert head.likeliest(probabilities[:, :, :2]).tolist()[0][1] == [0, 1, -1, -1], "shorter than the candidates"


def test_positions_are_never_cast():
    """In half precision they are whole beyond 256, and what is given comes back."""
    head = junctions().bfloat16()
    x, probabilities = torch.randn(1, 3, 1200).bfloat16(), torch.zeros(1, 5, 1200).bfloat16()
    probabilities[:, :, [1001, 777]] = 0.5
    out, used, _ = head(x, torch.tensor([0]), probabilities)
    assert used[0, 0].tolist() == [777, 1001, -1, -1]
    assert out.dtype == torch.bfloat16
    _, used, _ = head(x, torch.tensor([0]), probabilities, used.int())
    assert used.dtype == torch.int64
    with pytest.raises(TypeError, match="whole numbers"):
        head(x, torch.tensor([0]), probabilities, used.bfloat16())


def test_any_position_below_zero_is_none():
    head = junctions()
    x, probabilities, organism = torch.randn(1, 3, 20).double(), torch.zeros(1, 5, 20).double(), torch.tensor([0])
    positions = torch.tensor([[[2, 5, 9, -1]] * 4])
    out, used, _ = head(x, organism, probabilities, positions)
    for other in (-2, -(2**31)):
        same, again, _ = head(x, organism, probabilities, positions.where(positions >= 0, other))
        assert torch.equal(again, used)
        assert torch.equal(same, out)
    with pytest.raises(TypeError, match="not torch.bool: list the places"):
        head(x, organism, probabilities, positions >= 0)


def test_far_positions_are_turned_exactly():
    """Angles of a million bases are worked out in float64, whatever the model's precision."""
    head = junctions()
    at = torch.tensor([2**20 - 1, 123_457])
    exact = torch.tensor(np.array([[p / (f + (2**20 - 2) ** (f / 2)) for f in range(3)] for p in at.tolist()]))
    cos, sin = head.float().rope.turns(at, torch.float32)
    torch.testing.assert_close(cos, exact.cos().float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(sin, exact.sin().float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("portion", [1, 2, 5])
def test_tissues_in_portions(portion, monkeypatch):
    """The same numbers and gradients as at once; in training the portions' features are worked out again."""
    head = junctions()
    x, probabilities = torch.randn(2, 3, 30, dtype=torch.float64), torch.rand(2, 5, 30, dtype=torch.float64)
    made = {}
    for size in (100, portion):
        monkeypatch.setattr(head, "portion", size)
        head.zero_grad()
        out = head(x, ORGANISM, probabilities)[0]
        out.square().sum().backward()
        made[size] = [out.detach(), *(p.grad.clone() for p in head.parameters())]
        with torch.no_grad():
            torch.testing.assert_close(head(x, ORGANISM, probabilities)[0], out)
    for one, two in zip(*made.values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_junction_loss():
    """Section 9 of the facts, in loops."""
    head = junctions()
    torch.manual_seed(3)
    out, target = torch.rand(2, 4, 4, 6, dtype=torch.float64) * 3, torch.rand(2, 4, 4, 6, dtype=torch.float64) * 9
    positions = torch.randint(0, 9, (2, 4, 4))
    positions[0, 1, 3] = positions[1, 0, 0] = -1
    real = torch.tensor([[True, True, True], [True, True, False]])
    target[0, 1, 1, 0] = NAN
    total = 0.0
    for axis in (1, 2):  # over the donors of each acceptor, over the acceptors of each donor
        entropies, deviances = [], []
        for b, k, t in np.ndindex(2, 4, 6):
            line = []
            for j in range(4):
                d, a = (j, k) if axis == 1 else (k, j)
                there = positions[b, 2 * (t // 3), d] >= 0 and positions[b, 2 * (t // 3) + 1, a] >= 0
                if there and real[b, t % 3] and not math.isnan(target[b, d, a, t]):
                    line.append((target[b, d, a, t].item(), out[b, d, a, t].item(), 1))
                else:
                    line.append((0.0, 0.0, 0))
            if not any(known for _, _, known in line):
                continue
            reads = sum(y for y, _, _ in line)
            likelihood = sum(y / max(reads, 1e-7) * math.log(p + 1e-7) for y, p, _ in line)
            entropies.append(math.log(sum(p + 1e-7 for _, p, _ in line)) - likelihood)
            y, p = reads if reads <= 10 else 2 * math.sqrt(10 * reads) - 10, sum(p for _, p, _ in line)
            deviances.append(p - y * math.log(p + 1e-7) - (y - y * math.log(y + 1e-7)))
        total += sum(entropies) / len(entropies) + 0.2 * sum(deviances) / len(deviances)
    found = head.loss({"out": out, "positions": positions, "real": real}, target)
    assert found.item() == pytest.approx(total, rel=1e-9)


def test_misfits():
    fine = {"S": 5, "channels": 6, "real": None, "organisms": 2, "tissues": 3}
    SpliceJunctionHead.check(**fine)
    for wrong, said in (
        ({"S": 3}, "3 classes; the first four"),
        ({"channels": 5}, "pairs of channels"),
        ({"real": [3]}, "one number of tracks for each of 2 organisms"),
        ({"real": [4, 1]}, "at most 3"),
    ):
        with pytest.raises(Misfit, match=said):
            SpliceJunctionHead.check(**{**fine, **wrong})


def test_real_tracks():
    assert RealTracks([2, 0], 2, 3)(torch.tensor([1, 0, 0])).tolist() == [[False] * 3, *[[True, True, False]] * 2]
    assert RealTracks(None, 2, 2)(torch.tensor([1])).all()


def test_sums_of_base_pairs():
    x = torch.full((1, 2, 6), 300.25).half()
    assert sum_pool(x, 3).tolist() == [[[900.75, 900.75]] * 2]
    assert sum_pool(x, 3).dtype == torch.float32
    assert sum_pool(x.double(), 2).dtype == torch.float64
    with pytest.raises(ValueError, match="6 positions don't divide into sums of 4"):
        sum_pool(x, 4)
