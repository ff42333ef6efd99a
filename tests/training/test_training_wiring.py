from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_helpers import QUICK, SMALL, table_and_splits, two_targets

from agblocks import resolve
from agblocks.data import Construct, DataError, lentimpra, reverse_complement
from agblocks.training import RunError, Wiring, fit, load_run, predict, wire
from agblocks.training.sources import Source, read_construct, read_data, split

FLAGGED = {
    **SMALL,
    "inputs": {"dna": "B 4 L", "turned": "B", "organism": "B"},
    "nodes": {
        "flag": {"block": "input.reverse", "in": {"x": "dna", "reverse": "turned"}},
        "stem": {**SMALL["nodes"]["stem"], "in": "flag"},
        "trunk": {"block": "embed.organism", "in": {"x": "stem", "organism": "organism"}},
    },
    "heads": {
        "one": {**SMALL["heads"]["activity"], "in": "trunk"},
        "two": {**SMALL["heads"]["activity"], "in": "trunk"},
    },
}


def test_inputs_other_than_dna(tmp_path):
    table, splits = table_and_splits()
    table = two_targets(table)
    heads = {"one": ["other"], "two": ["activity"]}
    resolved = resolve(FLAGGED)
    with pytest.raises(RunError, match="input 'organism' needs a value"):
        wire(resolved, table.target_names, heads)
    with pytest.raises(RunError, match=r"input 'organism' is 2, wanted a whole number from 0 to 1"):
        wire(resolved, table.target_names, heads, {"organism": 2})
    with pytest.raises(RunError, match="the model has the heads one, two and the targets are activity, other"):
        wire(resolved, table.target_names, None, {"organism": 1})
    with pytest.raises(RunError, match="each wants one head"):
        wire(resolved, table.target_names, {"one": ["other"]}, {"organism": 1})
    settings = replace(QUICK, epochs=1, strands="both")
    run = fit(resolved, table, splits, tmp_path / "run", settings, heads=heads, inputs={"organism": 1})
    assert (run.wiring.reverse, run.wiring.constants) == ("turned", (("organism", 1),))
    assert run.target_names == ("activity", "other")
    assert run.wiring == load_run(tmp_path / "run").wiring == Wiring.from_dict(run.wiring.to_dict())
    # By hand: the flag goes with the strand, each head's column to its target, in measured units.
    rows = splits.test[:4]
    made = predict(run, table, rows)
    from agblocks.data import one_hot

    wanted = np.zeros((4, 2))
    for flag, turn in ((0, str), (1, reverse_complement)):
        x = one_hot([turn(table.sequences[i]) for i in rows])
        with torch.no_grad():
            out = run.model(dna=x, turned=torch.full((4,), flag), organism=torch.ones(4, dtype=torch.int64))
        for column, (head, target) in enumerate(zip(("two", "one"), run.targets, strict=True)):
            wanted[:, column] += (out[head][:, 0].double().numpy() * target.deviation + target.mean) / 2
    np.testing.assert_allclose(made, wanted, rtol=1e-5)


def test_scaling_is_of_the_training_rows():
    table, splits = table_and_splits()
    both = two_targets(table)
    values = both.targets[splits.train]
    wiring = wire(resolve(SMALL, "activity.targets=2"), both.target_names).scaled(values)
    for i, target in enumerate(wiring.targets):
        assert target.mean == pytest.approx(np.nanmean(values[:, i]), rel=1e-5)
        assert target.deviation == pytest.approx(np.nanstd(values[:, i]), rel=1e-5)
    scaled = wiring.scale(values)
    np.testing.assert_allclose(np.nanmean(scaled, 0), 0, atol=1e-5)
    back = wiring.outputs({"activity": torch.from_numpy(scaled)})
    np.testing.assert_allclose(back, values, rtol=1e-5, atol=1e-5)


def test_a_leak_behind_adapters_is_found_without_a_construct(tmp_path):
    """Both strands of one insert differ as whole sequences once they carry the same adapters."""
    table, splits = table_and_splits()
    a, b = "ACCGGTTA", "GGATCCTA"
    texts = list(table.sequences)
    texts[splits.test[0]] = reverse_complement(texts[splits.train[0]])
    table = replace(table, sequences=tuple(a + s + b for s in texts))
    for construct in (None, Construct(left="AC"), Construct(strip_left=a, strip_right=b)):
        with pytest.raises(DataError, match="reverse complement"):
            fit(SMALL, table, splits, tmp_path / "run", QUICK, construct=construct)


def test_sources_deal_folds_where_there_are_none(tmp_path):
    path = tmp_path / "t.csv"
    rng = np.random.default_rng(0)
    inserts = ["".join(rng.choice(list("ACGT"), 12)) for _ in range(40)]
    inserts[7] = reverse_complement(inserts[3])
    path.write_text("s,y\n" + "".join(f"AA{s}CC,{i}\n" for i, s in enumerate(inserts)))
    source = Source((str(path),), sequence="s", targets=("y",))
    table = read_data(source)
    assert table.fold is not None
    assert len(set(table.fold)) == 10
    assert table.fold[7] == table.fold[3]
    splits = split(source, table)
    assert len(splits.train) + len(splits.valid) + len(splits.test) == 40
    assert Source.from_dict(source.to_dict()) == source
    with pytest.raises(RunError, match="does not say where its rows came from"):
        Source.from_dict({"": ""})


def test_constructs_by_name_and_file(tmp_path):
    import json

    assert read_construct("lentimpra:adapters") == lentimpra("adapters")
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(lentimpra().to_dict()))
    assert read_construct(str(path)) == lentimpra()
    path.write_text("{")
    with pytest.raises(RunError, match="cannot be read as a construct"):
        read_construct(str(path))
    with pytest.raises(DataError, match="lentimpr"):
        read_construct("lentimpr")
