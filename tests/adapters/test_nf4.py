"""NF4's numbers: against loops written apart, against stored ones of bitsandbytes, and against it where it is."""

import math
import random
import struct
import sys
from bisect import bisect_left
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch.testing import assert_close

from agblocks.adapters.nf4 import codes as nf4

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "fixtures"))

import seeded  # noqa: E402

FIXTURE = ROOT / "tests" / "fixtures" / "nf4.safetensors"
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def single(value):
    """A number as float32 has it; beyond its range infinite."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def normal_values():
    """From the definition: quantiles at equal steps of probability, by the largest."""
    quantile = NormalDist().inv_cdf
    high = 0.9677083
    above = [quantile(high + (0.5 - high) * i / 8) for i in range(8)]
    below = [-quantile(high + (0.5 - high) * i / 7) for i in range(7)]
    return sorted(v / max(above) for v in [*above, 0.0, *below])


def dynamic_values():
    values = [0.0, 1.0]
    for decade in range(7):
        parts = 2**decade
        for part in range(parts):
            value = (0.1 + 0.9 * (part + 0.5) / parts) * 10.0 ** (decade - 6)
            values += [value, -value]
    return sorted(values)


def nearest(values, x):
    """Which of sorted values is nearest; of two as near the lower."""
    return bisect_left([single(single(a + b) / 2) for a, b in zip(values, values[1:], strict=False)], x)


def oracle(weights, block, double):
    """Codes, absmax as divided by, restored values; a weight at a time, rounding after each step as float32 does."""
    code, eight = nf4.NF4.tolist(), nf4.DYNAMIC.tolist()
    codes, absmax = [], []
    for start in range(0, len(weights), block):
        part = weights[start : start + block]
        largest = max(abs(w) for w in part)
        inverse = single(1 / max(largest, single(1e-38)))
        codes += [nearest(code, single(w * inverse)) for w in part]
        absmax.append(largest if len(part) == block else max(largest, single(1e-38)))
    if double:
        mean = torch.tensor(absmax).mean().item()  # a sum's rounding is its order's, which is torch's
        restored = []
        for start in range(0, len(absmax), 256):
            part = [single(a - mean) for a in absmax[start : start + 256]]
            largest = max(abs(p) for p in part)
            for p in part:
                step = 0
                if largest > 0:
                    ratio = single(p * single(1 / largest))
                    step = math.floor(single(single(single(ratio + 1) * 32767.5) + 0.5))
                place = min(range(256), key=lambda i: abs(eight[i] - (step * 2 / 65535 - 1)))
                restored.append(single(single(eight[place] * largest) + mean))
        absmax = restored
    return codes, absmax, [single(code[c] * absmax[i // block]) for i, c in enumerate(codes)]


def nibbles(packed, size):
    return torch.stack([packed.codes >> 4, packed.codes & 15], 1).view(-1)[:size].tolist()


def test_the_values_are_their_definitions():
    assert_close(nf4.NF4.double(), torch.tensor(normal_values(), dtype=torch.float64), atol=2e-7, rtol=0)
    assert_close(nf4.DYNAMIC.double(), torch.tensor(dynamic_values(), dtype=torch.float64), atol=0, rtol=2e-7)
    assert nf4.NF4[[0, 7, 15]].tolist() == [-1, 0, 1]
    assert len(nf4.DYNAMIC) == 256 and bool((nf4.DYNAMIC.diff() > 0).all())


@given(
    size=st.integers(1, 700), block=st.sampled_from([16, 32, 64, 128]), double=st.booleans(),
    scale=st.sampled_from([1e-20, 3e-3, 1.0, 50.0]), zeros=st.sampled_from([0, 0.5]), seed=st.integers(0, 99),
)  # fmt: skip
def test_equals_loops(size, block, double, scale, zeros, seed):
    draw = random.Random(seed)
    values = [single(draw.gauss(0, scale)) if draw.random() >= zeros else 0.0 for _ in range(size)]
    packed = nf4.pack(torch.tensor(values), block=block, double=double)
    codes, absmax, restored = oracle(values, block, double)
    assert nibbles(packed, size) == codes
    assert nf4.absmax(packed).tolist() == absmax
    assert nf4.unpack(packed, size, block=block).tolist() == restored
    half = nf4.unpack(packed, size, block=block, dtype=torch.bfloat16)
    assert torch.equal(half, torch.tensor(restored).bfloat16())


@given(size=st.integers(1, 2000), double=st.booleans(), dtype=st.sampled_from([*TYPES.values(), torch.float64]))
def test_error_is_at_most_half_the_widest_gap(size, double, dtype):
    weight = torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)
    packed = nf4.pack(weight, double=double)
    restored = nf4.unpack(packed, size)
    divided = nf4.pack(weight, double=False).absmax
    gap = float(nf4.NF4.diff().max()) / 2 + 1e-6
    bound = divided * gap + (nf4.absmax(packed) - divided).abs()  # the code's error, and that of its block's scale
    assert bool(((weight.float() - restored).abs() <= bound.repeat_interleave(64)[:size] + 1e-6).all())


def test_rows_are_those_of_the_whole():
    weight = torch.randn(50, 7)
    for double in (False, True):
        packed = nf4.pack(weight, double=double)
        rows = torch.randint(0, 50, (3, 5))
        assert torch.equal(nf4.unpack_rows(packed, rows, 7), nf4.unpack(packed, 350).view(50, 7)[rows])


@pytest.mark.parametrize(("double", "bits"), [(False, 4.5), (True, 4 + 8 / 64 + 32 / (64 * 256))])
def test_bits_and_error_of_normal_weights(double, bits):
    weight = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)) * 0.02
    packed = nf4.pack(weight, double=double)
    held = sum(t.numel() * t.element_size() for t in packed if t is not None)
    assert held * 8 / weight.numel() == pytest.approx(bits, abs=1e-4)
    restored = nf4.unpack(packed, weight.numel()).view_as(weight)
    assert float((restored - weight).norm() / weight.norm()) == pytest.approx(0.092, abs=5e-4)


def test_large_tensors_go_by_pieces_of_whole_blocks(monkeypatch):
    weight = torch.randn(64 * 37 + 5)
    whole = nf4.pack(weight)
    monkeypatch.setattr(nf4, "CHUNK", 64 * 4)
    for a, b in zip(whole, nf4.pack(weight), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("weight", "options", "says"),
    [
        (torch.ones(8), {"block": 48}, "power of two"),
        (torch.ones(8), {"block": 8}, "power of two"),
        (torch.ones(8, dtype=torch.int32), {}, "floating"),
        (torch.ones(0), {}, "at least one"),
        (torch.tensor([1.0, math.nan]), {}, "finite"),
        (torch.tensor([1.0, math.inf]), {}, "finite"),
        (torch.tensor([1.0, 1e300], dtype=torch.float64), {}, "finite"),
    ],
)
def test_refusals(weight, options, says):
    with pytest.raises(nf4.NF4Error, match=says):
        nf4.pack(weight, **options)


def fixture_weight(name, stored):
    kind, _, size = name.partition(".")
    if kind == "ties":
        return stored.get_tensor("ties")
    if kind == "normal":
        return torch.from_numpy(seeded.normal(name, (int(size),), 0.03))
    return torch.full((int(size),), {"zeros": 0.0, "tiny": 3e-39, "ones": 1.0}[kind])


def test_equals_what_bitsandbytes_gave():
    seen = 0
    with safe_open(FIXTURE, "pt") as stored:
        assert torch.equal(nf4.NF4, stored.get_tensor("code"))
        assert torch.equal(nf4.DYNAMIC, stored.get_tensor("dynamic"))
        for key in {k.rpartition("/")[0] for k in stored.keys() if "/" in k}:  # noqa: SIM118
            name, kind, how = key.split("/")
            weight = fixture_weight(name, stored).to(TYPES[kind])
            packed = nf4.pack(weight, double=how == "double")
            assert torch.equal(packed.absmax, stored.get_tensor(f"{key}/absmax")), key
            assert torch.equal(packed.codes, stored.get_tensor(f"{name}/{kind}/single/codes")), key
            if how == "double":
                assert torch.equal(packed.scale, stored.get_tensor(f"{key}/scale")), key
                assert torch.equal(packed.offset, stored.get_tensor(f"{key}/offset")), key
            restored = nf4.unpack(packed, weight.numel(), dtype=weight.dtype)
            at = torch.from_numpy(np.linspace(0, len(restored) - 1, min(len(restored), 300)).astype(int))
            assert torch.equal(restored[at], stored.get_tensor(f"{key}/restored")), key
            assert float(restored.double().sum()) == pytest.approx(float(stored.get_tensor(f"{key}/sum")), rel=1e-12)
            seen += 1
    assert seen == 2 * (8 * 3 + 4)


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("size", [1, 63, 64, 100, 4096, 64 * 257, 100_003])
def test_equals_bitsandbytes(size, dtype):
    library = pytest.importorskip("bitsandbytes.functional")
    weight = (torch.randn(size) / torch.rand(size).clamp(min=0.01)).to(dtype)
    for double in (False, True):
        codes, state = library.quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type="nf4")
        packed = nf4.pack(weight, double=double)
        assert torch.equal(packed.codes, codes.view(-1)) and torch.equal(packed.absmax, state.absmax.view(-1))
        if double:
            assert torch.equal(packed.scale, state.state2.absmax.view(-1)) and torch.equal(packed.offset, state.offset)
        restored = nf4.unpack(packed, size, dtype=dtype)
        assert torch.equal(restored, library.dequantize_4bit(codes, state).view(-1))
        nf4.use_bitsandbytes(True)
        try:
            assert torch.equal(nf4.unpack(packed, size, dtype=dtype), restored)
        finally:
            nf4.use_bitsandbytes(False)


def test_bitsandbytes_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(nf4.NF4Error, match=r"agblocks\[qlora\]"):
        nf4.use_bitsandbytes(True)
    nf4.use_bitsandbytes(False)
    assert nf4.unpack(nf4.pack(torch.ones(3)), 3).tolist() == [1, 1, 1]
