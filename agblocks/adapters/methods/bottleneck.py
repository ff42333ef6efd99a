"""Bottlenecks: down to a few channels, an activation, up again, added to what a module gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from agblocks.graph.adapter_kinds import adapter
from agblocks.graph.types import Positive, PositiveFloat

from ..adapter import Adapter, Phase, main, remade
from ..parts.bottleneck import Bottleneck, UpInit
from ..parts.dense import Dense, cast
from ..parts.published import published
from ..place import Place


@adapter("houlsby", role=("block.attn", "block.mlp"))
class Houlsby(Bottleneck):
    """`y' = y + U relu(D y + d) + u` behind attention and behind the MLP, before each is added to what goes on.

    Sites: those sub-layers; on a Linear it is the 'linear placement'; anything of known width, channels first or last.
    Parameters: 2 d m + m + d, m = `latent` (8). D and U are N(0, 1e-3) cut off at 2 std: at the start the output
    changes by 6e-5 of its norm at 1536 channels, 2e-5 at 256 (nothing with `up_init: zero`); not mergeable.
    The other arguments are those of every bottleneck: see `agblocks.adapters.parts.bottleneck.Bottleneck`.
    Source: Houlsby et al. 2019, with Baskerville's values (Yuan and Linder et al. 2025), which trains norms as well:
    add `norm`. Use when: a thousand measurements or more, and nothing has to be merged.
    """

    __init__ = published(Bottleneck.__init__, latent=8)


@adapter("pfeiffer", role="block.mlp")
class Pfeiffer(Bottleneck):
    """The bottleneck behind the MLP alone: half of Houlsby's sites, weights N(0, 0.02), biases 0.

    Sites: as `houlsby` (with `role=block.attn+block.mlp` and silu it is AdapterHub's DoubleSeq).
    Parameters: 2 d m + m + d, m = d // reduction (16). At the start the output changes by 0.1 of its norm at 1536
    channels, 0.02 at 256: `up_init: zero` spares that. Source: Pfeiffer et al. 2020, with BERT's initial values as in
    AdapterHub. Use when: adapters of several tasks are to be stacked or fused, as it was made for.
    """

    __init__ = published(Bottleneck.__init__, reduction=16, init="normal", std=0.02)


@adapter("parallel", role="block.mlp")
class Parallel(Bottleneck):
    """`y' = y + s (U relu(D x + d) + u)`, x what the module reads: beside it rather than behind.

    Sites: modules that give as many positions as they read, of known widths; x is what a block reads, before its own
    norm. A module that overwrites x in place is refused where that comes first or a probe shows it; elsewhere the path
    reads what x became. Parameters: m in + m + out m + out, m = in // reduction (2). U = 0, so nothing changes at the
    start; D U(+-1 / sqrt(in)). `scaling`: s, 4.0, or `learned` from 1.
    Source: He et al. 2022. Use when: there is enough to fit a wide adapter.
    """

    taps_input = True
    __init__ = published(Bottleneck.__init__, reduction=2, init="kaiming", up_init="zero", scaling=4.0)


@adapter("adapter_plus", role="block.mlp")
class AdapterPlus(Bottleneck):
    """`y' = y + c * (U gelu(D y + d) + u)` behind the MLP, c one number a channel, left out at times for a whole row.

    Sites: as `houlsby`. Parameters: 2 d m + m + 2 d, m = d // reduction (96). D and U are N(0, 0.01) cut off at 2 std,
    c = 1: at the start the output changes by 6e-3 of its norm at 1536 channels, 9e-4 at 256. `drop_path` 0.1.
    Source: Steitz and Roth 2024. Use when: as `houlsby`; the leaner of the two.
    """

    __init__ = published(
        Bottleneck.__init__, reduction=96, activation="gelu", std=1e-2, scaling="channel", drop_path=0.1
    )


@adapter("houlsby_se", role="conv.main")
class HoulsbySqueezeExcite(Adapter):
    """`y' = y + y * tanh(W2 relu(W1 mean(y)))`: channels scaled by what all of them are on average.

    The mean is over the whole length, so a window of a longer input comes out differently.
    Sites: convolutions, and whatever has known channels. Parameters: 2 c rank, no biases. W1 and W2 are N(0, 1e-3) cut
    off at 2 std: at the start the output changes by 6e-6 of its norm (nothing with `up_init: zero`); not mergeable.
    Source: Baskerville's `add_houlsby_se` (Yuan and Linder et al. 2025), which puts `houlsby` on the transformer and
    trains the norms beside it. Use when: what has to change lies in the encoder, and its length is always the same.
    """

    phase = Phase.ACT

    def __init__(self, place: Place, *, rank: Positive = 16, std: PositiveFloat = 1e-3, up_init: UpInit = "same"):
        super().__init__(place)
        channels = place.width(self.kind.name)
        self.axis, self.std, self.up_init = place.axis, std, up_init
        self.identity = up_init == "zero"
        self.down = Dense(place, channels, rank, bias=False)
        self.up = Dense(place, rank, channels, bias=False)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Both maps drawn, or the second 0."""
        self.down.draw("truncated", self.std, generator)
        self.up.draw("zero" if self.up_init == "zero" else "truncated", self.std, generator)

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        y = main(out)
        return remade(out, y + y * cast(self.gain(y), y))

    def gain(self, y: Tensor) -> Tensor:
        """A number between -1 and 1 for each row and channel, shaped to multiply."""
        axis = self.axis % y.dim()
        inner = [d for d in range(1, y.dim()) if d != axis]
        mean = y.mean(inner) if inner else y
        gain = torch.tanh(self.up(torch.relu(self.down(mean))))
        return gain.view([1 if d in inner else n for d, n in enumerate(y.shape)])
