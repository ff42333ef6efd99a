"""What a review found in targets, specs, compositions and contracts, each as a test that failed before its mend."""

import pytest
import torch
from torch import nn

from agblocks.adapters.errors import AdapterError, NoTargetMatch
from agblocks.adapters.targets import select


class Named(nn.Module):
    """Linear layers under any dotted names."""

    def __init__(self, *names):
        super().__init__()
        for name in names:
            *parents, last = name.split(".")
            at = self
            for parent in parents:
                if parent not in at._modules:
                    at.add_module(parent, nn.Module())
                at = at.get_submodule(parent)
            at.add_module(last, nn.Linear(4, 4))


BLOCKS = [f"blocks.{n}.{part}" for n in range(6) for part in ("attn.qkv", "mlp.fc1", "mlp.fc2")]
HEAD = ["head.fc1", "head.fc2"]
RESNET = ["conv1.0", "conv1.3", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer2.0.downsample.0", "fc"]
SWIN = [f"stages.{n}.blocks.{m}.mlp.fc1" for n in range(3) for m in range(2)]


@pytest.mark.parametrize(
    ("names", "target", "wanted"),
    [
        (BLOCKS + HEAD, {"layers": "-1:"}, BLOCKS[-3:]),
        (BLOCKS + HEAD, {"layers": [0, 2]}, BLOCKS[:3] + BLOCKS[6:9]),
        (RESNET, {"layers": [1]}, RESNET[2:4]),
        (RESNET, {"layers": "2:"}, RESNET[4:6]),
        (HEAD, {"layers": [-1]}, ["head.fc2"]),  # nothing else is numbered
        (["conv1.0", "conv1.3", "fc"], {"layers": [1]}, ["conv1.0", "conv1.3"]),
        (["0", "1", "2"], {"layers": "1:"}, ["1", "2"]),
        (["encoder.0", "encoder.1", "decoder.0"], {"layers": [-1]}, ["encoder.1", "decoder.0"]),
        (SWIN, {"stages": [-1]}, SWIN[-2:]),
        (["stage1.0", "stage2.0", "fc1"], {"stages": ":2"}, ["stage1.0"]),
        (["net.0.stages.0.conv", "net.0.stages.1.conv"], {"stages": [1]}, ["net.0.stages.1.conv"]),
    ],
)
def test_what_is_numbered_as_a_layer_and_what_as_a_stage(names, target, wanted):
    assert list(select(Named(*names), {"type": ["Linear"], **target})) == wanted


def test_stages_are_no_layers():
    with pytest.raises(NoTargetMatch, match="numbered layer"):
        select(Named(*SWIN), {"type": ["Linear"], "layers": [1]})


def test_layers_that_are_themselves_meant():
    model = Named(*BLOCKS, *HEAD)
    assert list(select(model, {"glob": ["blocks.*"], "layers": "-2:"})) == ["blocks.4", "blocks.5"]
    both = select(model, {"glob": ["blocks.*", "blocks.*.mlp.fc1"], "layers": [5]})
    assert list(both) == ["blocks.5", "blocks.5.mlp.fc1"]


def test_a_bare_name_that_matches_nothing_is_told_near_ones():
    model = Named(*BLOCKS, *HEAD, "blocks.0.attn.c_proj")
    for wrong in ("q_proj", "**.q_proj"):
        with pytest.raises(NoTargetMatch, match=r"did you mean \*\*\.c_proj\?"):
            select(model, {"glob": [wrong]})
    with pytest.raises(NoTargetMatch) as caught:
        select(model, {"glob": ["zzzzzzzzzzzz"]})
    assert "there is: **.attn, **.blocks, **.c_proj" in str(caught.value) and "blocks.0" not in str(caught.value)


def test_no_module():
    for wrong in ({"a": 1}, None, nn.Linear):
        with pytest.raises(AdapterError, match=r"adapters sit on an nn\.Module, not on"):
            select(wrong, {"type": ["Linear"]})


def test_a_module_without_shapes_yet():
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    with pytest.raises(AdapterError, match=r"'0'.*LazyLinear.*call the model once"):
        select(model, {"type": ["Linear"]})
    assert list(select(model, {"glob": ["1"]})) == ["1"]
    model(torch.zeros(1, 3))
    assert list(select(model, {"type": ["Linear"]})) == ["0", "1"]
