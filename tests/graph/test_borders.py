"""Which positions of a window hang on where it ends: by what really differs from a longer sequence."""

import pytest
import torch

from agblocks import build, resolve
from agblocks.graph.borders import borders, grid
from agblocks.graph.reach import parse_chain

UNET = """
recipe: 1
name: unet
inputs: {dna: B 4 L}
nodes:
  encoder: {block: encoder.alphagenome, in: dna, args: {channels: 6, growth: 2, stages: 3}}
  decoder: {block: decoder.unet, in: {x: encoder, skips: encoder}}
  sides: {block: crop.sides, in: decoder, args: {crop: 5}}
  behind: {block: conv.block, in: sides, args: {kernel: 3, dilation: 2}}
  middle: {block: crop.center, in: behind, args: {target_length: 20}}
heads:
  fine: {block: head.coverage, in: decoder, args: {tracks: 2}}
  cropped: {block: head.coverage, in: behind, args: {tracks: 1}}
  few: {block: head.coverage, in: middle, args: {tracks: 1}}
"""


def dna(length, seed=0):
    return torch.eye(4, dtype=torch.float64)[
        torch.randint(4, (1, length), generator=torch.Generator().manual_seed(seed))
    ].mT


@pytest.mark.parametrize(("start", "window"), [(64, 256), (8, 192), (160, 200)])
def test_what_differs_from_a_longer_sequence(start, window):
    """Just the positions outside `start` and `end` differ, for an inner window of a longer sequence."""
    model = build(UNET, seed=1, dtype=torch.float64, keep=["encoder.*"]).eval()
    longer = dna(512)
    with torch.no_grad():
        whole = model(longer, outputs=["fine", "cropped", "encoder.stage3", "encoder"])
        part = model(longer[..., start : start + window], outputs=list(whole))
    found = borders(model.resolved, list(whole), {"L": window})
    for name, border in found.items():
        assert border.exact
        stride = int(border.stride)
        assert part[name].shape[2] == border.count
        same = whole[name][..., start // stride : start // stride + border.count]
        apart = (part[name] - same).abs().amax((0, 1)) > 1e-12
        assert not apart[border.start : border.end].any()
        assert border.start < border.end
        assert apart[border.start - 1] and apart[border.end]  # no more is given away than has to be
    assert grid(model.resolved, ["fine"], {"L": 64}) == 8


def test_where_positions_lie():
    resolved = resolve(UNET)
    found = borders(resolved, ["fine", "cropped", "few"], {"L": 96})
    assert [(b.stride, b.offset, b.count) for b in found.values()] == [(1, 0, 96), (1, 5, 86), (1, 38, 20)]
    enformer = borders(resolve("enformer"), ["human"], {"L": 196_608})["human"]
    assert (enformer.stride, enformer.offset, enformer.count, enformer.exact) == (128, 40_960, 896, False)
    borzoi = borders(resolve("borzoi"), ["human"], {"L": 524_288})["human"]
    assert (borzoi.stride, borzoi.offset, borzoi.count) == (32, 163_840, 6144)


def test_what_is_no_track_and_what_sees_everything():
    resolved = resolve("alphagenome_small")
    found = borders(resolved, ["contact_maps", "atac_128bp", "atac_1bp"], {"L": 4096})
    assert found["contact_maps"] is None
    assert (found["atac_128bp"].stride, found["atac_128bp"].count) == (128, 32)
    assert not found["atac_1bp"].exact
    learnt = """
recipe: 1
name: positions
inputs: {dna: B 4 64}
nodes:
  stem: {block: conv.stem, in: dna, args: {channels: 4}}
  where: {block: embed.positions, in: stem, args: {length: 64}}
heads: {out: {block: head.coverage, in: where, args: {tracks: 1}}}
"""
    positions = borders(resolve(learnt), ["out"], {})["out"]
    assert not positions.exact  # it knows where in the window it is


def test_center_stands_first():
    with pytest.raises(ValueError, match="stands first"):
        parse_chain("conv(3) center(4)")
