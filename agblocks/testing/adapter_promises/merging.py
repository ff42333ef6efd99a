"""What adapters promise of merging: the same outputs, and a way back."""

from __future__ import annotations

import copy

import torch

from ...adapters.errors import MergedStateError, NotMergeable
from ..adapter_trial import Trial, outputs
from ..contract import Broken
from .demands import demand, near


def merge(trial: Trial) -> None:
    """Merged, it gives what it gave hooked (float64, 1e-10); or it is refused by name."""
    adapted, x = trial.moved(), trial.place.input()
    hooked, values = outputs(adapted, x), copy.deepcopy(adapted.base.state_dict())
    module = adapted.base.get_submodule(trial.place.site)
    reasons = [a.unfoldable(module) for a in adapted.bank.adapters("default")]
    if any(reasons):
        try:
            adapted.bank.merge_()
        except NotMergeable as error:
            demand(trial.place.site in str(error) and trial.kind in str(error), f"the refusal names neither: {error}")
            demand(torch.equal(hooked, outputs(adapted, x)), "a refused merge changed something")
            return
        raise Broken(f"it says {reasons[0]!r}, but merges")
    twin = adapted.merged()
    demand(list(twin.state_dict()) == list(values), "the merged copy has other keys")
    demand(not any(m._forward_hooks or m._forward_pre_hooks for m in twin.modules()), "the merged copy has hooks")
    near(hooked, outputs(twin, x), 1e-10, "hooked and merged outputs")
    adapted.bank.merge_()
    near(hooked, outputs(adapted, x), 1e-10, "hooked and in-place merged outputs")
    for refused in (lambda: adapted.add("second", [trial.spec]), lambda: adapted.bank.remove("default")):
        try:
            refused()
        except MergedStateError:
            continue
        raise Broken("something was attached or removed while merged")
    adapted.bank.unmerge_()
    same = all(torch.equal(v, values[k]) for k, v in adapted.base.state_dict().items())
    demand(same, "unmerging does not give the same bits")
    demand(torch.equal(hooked, outputs(adapted, x)), "after unmerging it gives something else")


def half_merge(trial: Trial) -> None:
    """Merged in float32 it agrees within 1e-5; unmerging gives the same bits in float32 and bfloat16."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        adapted, x = trial.moved(dtype), trial.place.input(dtype)
        module = adapted.base.get_submodule(trial.place.site)
        if any(a.unfoldable(module) for a in adapted.bank.adapters("default")):
            return
        hooked, values = outputs(adapted, x), copy.deepcopy(adapted.base.state_dict())
        adapted.bank.merge_()
        near(hooked, outputs(adapted, x), tolerance, f"hooked and merged {dtype} outputs")
        adapted.bank.unmerge_()
        same = all(torch.equal(v, values[k]) for k, v in adapted.base.state_dict().items())
        demand(same, f"unmerging does not give the same {dtype} bits")
