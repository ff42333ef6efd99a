"""What adapters promise of being kept: drawn by a seed, saved, copied, in any dtype."""

from __future__ import annotations

import copy
import io
import tempfile
from pathlib import Path

import torch

from ...adapters import adapt
from ..adapter_trial import Trial, gradients, outputs
from .demands import demand, near


def seeded(trial: Trial) -> None:
    """The same seed draws the same values, whatever torch's own random state, which is left alone."""
    model, again = trial.place.model(), trial.place.model()
    state = torch.random.get_rng_state()
    first = adapt(model, [trial.spec]).bank.state_dict()
    demand(torch.equal(state, torch.random.get_rng_state()), "attaching draws from torch's own random state")
    torch.manual_seed(99)
    second = adapt(again, [trial.spec]).bank.state_dict()
    torch.random.set_rng_state(state)
    demand(all(torch.equal(v, second[k]) for k, v in first.items()), "values depend on torch's random state")


def on_meta(trial: Trial) -> None:
    """On the meta device it has the same tensors, so that it can be counted before anything is built."""
    with torch.device("meta"):
        model = trial.place.make()
    shapes = {k: (tuple(v.shape), v.dtype) for k, v in adapt(model, [trial.spec]).bank.state_dict().items()}
    real = {k: (tuple(v.shape), v.dtype) for k, v in trial.adapted(torch.float32).bank.state_dict().items()}
    demand(shapes == real, "other names, shapes or types than on a real device")


def saved(trial: Trial) -> None:
    """Saved alone and loaded into a fresh base it gives the same bits."""
    from ...adapters.files.store import load

    adapted, x = trial.moved(torch.float32), trial.place.input(torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        adapted.save(path)
        fresh = load(trial.place.model(torch.float32), path)
    demand(torch.equal(outputs(adapted, x), outputs(fresh, x)), "loaded, it gives something else")


def copied(trial: Trial) -> None:
    """A deep copy gives the same and shares nothing, of the whole as of the hooked base; torch.save brings it back."""
    adapted, x = trial.moved(), trial.place.input()
    hooked = outputs(adapted, x)
    twin, bare = copy.deepcopy(adapted), copy.deepcopy(adapted.base)
    file = io.BytesIO()
    torch.save(adapted, file)
    file.seek(0)
    for other, what in ((twin, "a deep copy"), (bare, "a copy of the base"),
                        (torch.load(file, weights_only=False), "a pickle")):  # fmt: skip
        demand(torch.equal(hooked, outputs(other, x)), f"{what} gives something else")
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.zero_()
    demand(torch.equal(hooked, outputs(twin, x)), "a deep copy follows the original's parameters")
    demand(torch.equal(hooked, outputs(bare, x)), "a copy of the base follows the original's parameters")
    adapted.detach()
    demand(torch.equal(hooked, outputs(twin, x)), "detaching takes the copy's hooks away")


def dtypes(trial: Trial) -> None:
    """On bases in half precision and under autocast its parameters are float32; what goes on has the base's type."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        adapted, x = trial.moved(dtype), trial.place.input(dtype)
        with adapted.bank.disabled():
            bare = outputs(adapted, x)
        made = outputs(adapted, x)
        demand(made.dtype == bare.dtype, f"on {dtype} it gives {made.dtype}")
        demand(bool(torch.isfinite(made).all()), f"on {dtype} it gives what is not finite")
        wanted = torch.float64 if dtype == torch.float64 else torch.float32
        kinds = {p.dtype for p in adapted.bank.parameters()}
        demand(kinds <= {wanted}, f"on {dtype} its parameters are {kinds}")
        demand(
            all(g.dtype == wanted for g in gradients(adapted, x).values()), f"on {dtype} gradients have another type"
        )
    adapted, x = trial.moved(torch.float32), trial.place.input(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        with adapted.bank.disabled():
            bare = outputs(adapted, x)
        made = outputs(adapted, x)
    demand(made.dtype == bare.dtype, f"under autocast it gives {made.dtype}, not {bare.dtype}")
    near(outputs(adapted, x), made, 0.1, "outputs with and without autocast")
