"""What a newcomer types: configurations that say more than they do, empty lists, names twice, heads that cannot be."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from agblocks import adapt, build, resolve
from agblocks.adapters.transfer_config.config import TransferConfig
from agblocks.adapters.transfer_config.transferred import convert
from agblocks.cli import app
from agblocks.errors import AgblocksError

Q = {"modality": "atac", "num_tracks": 4}


@pytest.fixture(scope="module")
def model():
    return build("alphagenome_small", device="meta")


def made(model, **values):
    return convert(TransferConfig.read({"mode": "linear", **values}), model, base="alphagenome_small")


def refused(model, message, **values):
    with pytest.raises(AgblocksError, match=re.escape(message)):
        made(model, **values)


# Heads: each key does something, is told of, or is refused.


def test_heads_on_the_encoder_alone(model):
    became = made(model, new_heads={"q": {**Q, "encoder_only": True}})
    resolved = resolve(became.recipe)
    assert set(became.recipe["heads"]) == {"q_128bp"}, "the encoder's resolution, and no other"
    assert resolved.nodes["q_128bp"].inputs["x"] == "encoder.pool"
    assert resolved.info("q_128bp").shape == "[B 4 L/128]"
    assert made(model, new_heads={"q": {**Q, "encoder_only": False}}).recipe == made(model, new_heads={"q": Q}).recipe


def test_the_mode_of_the_encoder_alone_says_it_of_every_head(model):
    became = made(model, mode="encoder-only", new_heads={"q": Q})
    assert resolve(became.recipe).nodes["q_128bp"].inputs["x"] == "encoder.pool"
    message = "new_heads.q: encoder_only is False, but mode is encoder-only"
    refused(model, message, mode="encoder-only", new_heads={"q": {**Q, "encoder_only": False}})
    refused(model, "new_heads.q: encoder_only is true or false, not 1", new_heads={"q": {**Q, "encoder_only": 1}})
    message = "new_heads.q: resolutions [1]; the encoder has 128"
    refused(model, message, new_heads={"q": {**Q, "encoder_only": True, "resolutions": [1]}})


def test_what_a_recipe_cannot_say_of_a_head_is_told(model):
    notes = "\n".join(made(model, new_heads={"q": {**Q, "track_means": [1, 2, 3, 4], "init_scheme": "uniform"}}).notes)
    assert "new_heads.q.track_means" in notes and "q_1bp.track_means" in notes
    assert "new_heads.q.init_scheme: uniform" in notes
    assert not made(model, new_heads={"q": {**Q, "track_means": None, "init_scheme": "truncated_normal"}}).notes
    refused(model, "new_heads.q: init_scheme 'zeros'", new_heads={"q": {**Q, "init_scheme": "zeros"}})


@pytest.mark.parametrize("resolutions", [[[1]], [1, 1], [1, True], [1.0], [], "1", 128, [64]])
def test_resolutions_are_different_whole_numbers(model, resolutions):
    refused(model, "new_heads.q: resolutions ", new_heads={"q": {**Q, "resolutions": resolutions}})


def test_organisms_of_a_head(model):
    message = "new_heads.q: num_organisms is a whole number above 0, not 'x'"
    refused(model, message, new_heads={"q": {**Q, "num_organisms": "x"}})


@pytest.mark.parametrize(
    ("name", "message"),
    [("a b", "a name is letters, digits and underscores"), ("embed", "new_heads.embed: there is a node 'embed_1bp'")],
)
def test_names_that_cannot_be_are_found_at_once(model, name, message):
    refused(model, message, new_heads={name: Q})


@pytest.mark.parametrize("removed", [[], ["atac"]])
def test_a_head_of_an_old_name_takes_its_place(model, removed):
    became = made(model, new_heads={"atac": {**Q, "resolutions": [128]}}, remove_heads=removed)
    resolved = resolve(became.recipe)
    assert "atac_1bp" not in resolved.heads, "the package's head is of both resolutions"
    assert resolved.info("atac_128bp").shape == "[B 4 L/128]"
    assert "new_heads.atac: takes the place of" in "\n".join(became.notes)
    assert became.train == ("atac_128bp",)


def test_other_heads_that_do_not_resolve_are_found_at_once(model):
    refused(model, "splice_sites", remove_heads=["splice_sites_classification"])


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"lora_rank": 4, "houlsby_latent_dim": 4}, "houlsby_latent_dim, lora_rank: not used, as mode is linear"),
        ({"mode": ["linear", "lora"], "ia3_ff_targets": ["fc2"]}, "ia3_ff_targets: not used, as mode is linear + lora"),
        ({"mode": "full", "unfreeze_norm": True}, "unfreeze_norm: not used without adapters"),
    ],
)
def test_keys_without_their_mode_are_told(model, values, note):
    assert note in "\n".join(made(model, **values).notes)
    assert "not used" not in str(made(model, mode="lora", lora_rank=4, unfreeze_norm=True))


def test_heads_of_another_packages_model_are_told():
    net = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(4, 4)})
    assert "left to prepare_for_transfer" in str(made(net, mode="lora", new_heads={"q": Q}))
    assert "prepare_for_transfer" not in str(made(net, mode="lora"))


# What trains.


def test_what_trains_can_be_attached_in_every_mode():
    for values, trains in (
        ({"mode": "linear"}, None),
        ({"mode": "linear", "new_heads": {"q": Q}}, ("q_128bp", "q_1bp")),
        ({"mode": "lora", "new_heads": {"q": Q}}, ("q_128bp", "q_1bp")),
        ({"mode": "encoder-only", "new_heads": {"q": Q}}, ("q_128bp",)),
        ({"mode": "full"}, ("**",)),
    ):
        became = made(build("alphagenome_small", device="meta"), **values)
        base = build(became.recipe, device="meta")
        heads = tuple(sorted(resolve(became.recipe).heads))
        assert became.train == (heads if trains is None else trains), values
        assert became.tune == ({"full": "full"}.get(values["mode"]) or ("+".join(trains) if trains else "head"))
        adapted = adapt(base, became.specs, train=became.train)
        opened = {name for name, p in adapted.base.named_parameters() if p.requires_grad}
        wanted = {n for n, _ in adapted.base.named_parameters()
                  if values["mode"] == "full" or n.startswith(tuple(f"{head}." for head in became.train))}  # fmt: skip
        assert opened == wanted and opened
        assert f"trains{' beside them' if became.specs else ''}: " in str(became)


# Lists that are empty, keys that are said twice.


@pytest.mark.parametrize(
    ("values", "empty"),
    [
        ({"mode": "lora", "lora_targets": []}, "lora_targets is empty"),
        ({"mode": ["linear", "locon"], "locon_targets": []}, "locon_targets is empty"),
        ({"mode": "ia3", "ia3_targets": []}, "ia3_targets and ia3_ff_targets are empty"),
        ({"mode": "houlsby", "houlsby_targets": []}, "houlsby_targets is empty"),
    ],
)
def test_a_mode_without_targets_is_an_error(values, empty):
    with pytest.raises(AgblocksError, match=f"{empty}: "):
        TransferConfig.read(values)


def test_one_of_ia3s_lists_is_enough():
    TransferConfig.read({"mode": "ia3", "ia3_targets": [], "ia3_ff_targets": ["fc2"]})
    TransferConfig.read({"mode": "linear", "lora_targets": []})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"mode": "lora", "mode": "ia3"}', "mode"),
        (
            '{"mode": "linear", "new_heads": {"q": {"modality": "atac", "num_tracks": 4, "num_tracks": 5}}}',
            "num_tracks",
        ),
    ],
)
def test_keys_twice_in_a_file(tmp_path, text, key):
    (tmp_path / "config.json").write_text(text)
    assert json.loads(text)
    with pytest.raises(AgblocksError, match=rf"config\.json: '{key}' is said twice"):
        said("adapters", "convert", str(tmp_path / "config.json"))


def said(*command):
    return CliRunner().invoke(app(), command, catch_exceptions=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "--adapter '': the text is empty"), (" ", "the text is empty"), ("lora:,,,", "nothing stands after 'lora:'")],
)
def test_adapters_that_say_nothing(tmp_path, text, message):
    run = ["--data", "simulated", "-o", str(tmp_path / "run"), "--adapter", text]
    for command in (["fit", "mpra_small", *run], ["crossval", "mpra_small", *run]):
        with pytest.raises(AgblocksError, match=re.escape(message)):
            said(*command)
    with pytest.raises(AgblocksError, match=re.escape(message.removeprefix("--adapter "))):
        said("adapters", "count", "alphagenome_small", text)
    assert not (tmp_path / "run").exists()


def test_the_recipe_is_printed_with_what_it_cannot_say(tmp_path):
    head = json.dumps({"q": {**Q, "track_means": "means.pt"}})
    text = said("adapters", "convert", "mode=linear", f"new_heads={head}", "--yaml").output
    assert text.startswith("# new_heads.q.track_means: no part of a recipe")
    (tmp_path / "mine.yaml").write_text(text)
    assert "q_1bp" in resolve(tmp_path / "mine.yaml").heads
    (tmp_path / "keys").write_text("tower.blocks.0.mha.q_proj.weight\ntower.blocks.0.mha.v_proj.weight\n")
    with pytest.raises(AgblocksError, match="--yaml prints a recipe, but with --names"):
        said("adapters", "convert", "mode=lora", "--names", str(tmp_path / "keys"), "--yaml")


def test_a_base_that_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("recipe: 1\nname: mine\nbase: alphagenome_small\n")
    text = said("adapters", "convert", "mode=lora", "lora_rank=2", "--recipe", "base.yaml", "--yaml").output
    (tmp_path / "mine.yaml").write_text(text)
    assert [str(spec) for spec in resolve("mine.yaml").adapters] == ["lora:role=attn.q+attn.v,rank=2"]


@pytest.mark.parametrize("recipe", ["mpra_small", "alphagenome_small", "tiny"])
def test_a_recipes_roles_are_told(recipe):
    with pytest.raises(AgblocksError, match="name some, as in `agblocks (.*)`; roles that it has: (.*)$") as caught:
        said("adapters", "count", recipe)
    command, roles = re.search("`agblocks (.*)`; roles that it has: (.*)$", str(caught.value)).groups()
    assert "conv.main" in roles and ("attn.q" in roles) == (recipe == "alphagenome_small")
    assert re.search(r": \d+ sites?, ", said(*command.split()).output)


def test_the_conversion_that_the_guide_shows():
    guide = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
    ((command, shown),) = re.findall(r"```\n\$ agblocks (adapters convert .*?)\n(.*?)\n```", guide, re.DOTALL)
    assert said(*shlex.split(command)).output.startswith(f"{shown}\n")


# Runs.


@pytest.fixture(scope="module")
def rows():
    from agblocks.data import simulate_mpra, split_by_fold

    table, _ = simulate_mpra(120, 40, seed=0, sites=2.0)
    return table, split_by_fold(table, valid="1", test="0")


LATER = ("tune", "unfreeze", "layer_decay", "head_lr", "min_scale")


def quick(**values):
    from agblocks.training import Settings

    return Settings(**{"epochs": 2, "batch_size": 32, "patience": 0, "device": "cpu", **values})


def as_before(folder):
    """The run's start as it was written before there was fine-tuning."""
    started = json.loads((folder / "started.json").read_text())
    for name in LATER:
        del started["settings"][name]
    del started["weights"], started["adapters"]
    (folder / "started.json").write_text(json.dumps(started))


def test_runs_from_before_fine_tuning_are_resumed(rows, tmp_path, monkeypatch):
    from agblocks.training import RunError, fit
    from agblocks.training.module import Fitting
    from agblocks.training.run import FILE

    whole = fit("tiny", *rows, tmp_path / "run", quick())
    as_before(tmp_path / "run")
    assert fit("tiny", *rows, tmp_path / "run", quick(), resume=True).metrics == whole.metrics
    for change in ({"tune": "head"}, {"layer_decay": 0.9}, {"head_lr": 2.0}):
        with pytest.raises(RunError, match=f"settings.{next(iter(change))} was"):
            fit("tiny", *rows, tmp_path / "run", quick(**change), resume=True)
    count = [0]
    begin = Fitting.on_train_batch_start

    def stopped(self, batch, batch_idx):
        count[0] += 1
        if count[0] == 5:
            raise KeyError("interrupted")
        begin(self, batch, batch_idx)

    monkeypatch.setattr(Fitting, "on_train_batch_start", stopped)
    with pytest.raises(KeyError, match="interrupted"):
        fit("tiny", *rows, tmp_path / "other", quick())
    as_before(tmp_path / "other")
    fit("tiny", *rows, tmp_path / "other", quick(), resume=True)
    assert (tmp_path / "other" / FILE).read_bytes() == (tmp_path / "run" / FILE).read_bytes()


@pytest.mark.parametrize("settings", [None, [], "x", {"lr": [1]}])
def test_a_start_that_is_damaged_is_refused(rows, tmp_path, settings):
    from agblocks.training import RunError, fit

    fit("tiny", *rows, tmp_path / "run", quick(epochs=1))
    started = json.loads((tmp_path / "run" / "started.json").read_text())
    (tmp_path / "run" / "started.json").write_text(json.dumps({**started, "settings": settings}))
    with pytest.raises(RunError, match="resuming needs the same"):
        fit("tiny", *rows, tmp_path / "run", quick(epochs=1), resume=True)


def test_members_of_an_ensemble_begin_with_adapters_of_their_own(rows, tmp_path, monkeypatch):
    from agblocks.training import fit, train

    starts = []
    own = train.train

    def noted(model, *rest):
        starts.append({name: p.detach().clone() for name, p in model.bank.named_parameters()})
        return own(model, *rest)

    monkeypatch.setattr(train, "train", noted)
    fit("mpra_small", *rows, tmp_path / "run", quick(epochs=1, ensemble=2), adapters=["locon:role=conv.main,rank=2"])
    first, second = starts
    drawn = [name for name in first if first[name].count_nonzero()]
    assert drawn and not any(torch.equal(first[name], second[name]) for name in drawn)
