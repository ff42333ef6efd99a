"""A `TransferConfig` read: what its texts find is what alphagenome-pytorch replaces; its rules; the recipe it becomes."""

import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from agblocks import AdapterSpec, adapt, build, resolve
from agblocks.adapters.targets import select
from agblocks.adapters.transfer_config.config import ADAPTERS, TransferConfig
from agblocks.adapters.transfer_config.port_names import CONV, LINEAR, NORM, heads, known
from agblocks.adapters.transfer_config.transferred import convert
from agblocks.cli import app
from agblocks.errors import AgblocksError

KEYS = Path(__file__).parents[1] / "weights" / "keys" / "alphagenome.txt"
NEW = {"my_atac": {"modality": "atac", "num_tracks": 4}}
HEADS = {"remove_heads": ["atac", "dnase"], "new_heads": NEW}
# The examples of the package's document: what they attach, by role, after its names are put right.
DOCUMENT = {
    "linear": ({"mode": "linear"}, []),
    "lora": (
        {"mode": "lora", "lora_rank": 8, "lora_alpha": 16, "lora_targets": ["q_proj", "v_proj"]},
        [AdapterSpec("lora", role=["attn.q", "attn.v"], rank=8, alpha=16.0)],
    ),
    "ia3": (
        {"mode": "ia3", "ia3_targets": ["k_proj", "v_proj"], "ia3_ff_targets": ["fc2"]},
        [AdapterSpec("ia3", role=["attn.k", "attn.v"]), AdapterSpec("ia3_ff", role="mlp.down")],
    ),
    "houlsby": (
        {"mode": "houlsby", "houlsby_latent_dim": 8, "houlsby_targets": ["mha", "mlp"], "unfreeze_norm": True},
        [AdapterSpec("houlsby", role=["block.attn", "block.mlp"], latent=8), AdapterSpec("norm")],
    ),
    "houlsby, linear": (
        {"mode": "houlsby", "houlsby_placement": "linear", "houlsby_targets": ["q_proj", "v_proj"]},
        [AdapterSpec("houlsby", role=["attn.q", "attn.v"], latent=8)],
    ),
    "full": ({"mode": "full"}, []),
}
# How many modules alphagenome-pytorch 0.3.1 replaces, measured by running it.
REPLACED = {
    ("lora", "q_proj"): 9, ("lora", "proj"): 36, ("lora", "linear_q"): 10, ("lora", "fc2"): 9, ("lora", "mha"): 36,
    ("lora", "project"): 0, ("lora", "fc"): 18, ("locon", "down_blocks"): 12, ("locon", "down_blocks.5"): 2,
    ("locon", "project"): 3, ("locon", "conv_in"): 7,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return build("alphagenome", device="meta")


def read(**values):
    return TransferConfig.read(values)


def sites(model, made, kind):
    return [path for spec in made.specs if spec.kind == kind for path in select(model, spec.target)]


@pytest.mark.parametrize("name", DOCUMENT)
def test_the_documents_examples(model, name):
    values, specs = DOCUMENT[name]
    made = convert(read(**values, **HEADS), model)
    assert list(made.specs) == specs
    assert made.unmatched == ()
    assert made.tune == ("full" if name == "full" else "my_atac_128bp+my_atac_1bp")
    assert set(made.train) == ({"**"} if name == "full" else {"my_atac_1bp", "my_atac_128bp"}), "the new heads alone"


@pytest.mark.parametrize(("kind", "text"), REPLACED)
def test_texts_find_what_the_package_replaces(model, kind, text):
    made = convert(read(mode=kind, **{f"{kind}_targets": [text]}), model)
    found = sites(model, made, kind)
    assert len(found) == len(set(found)) == REPLACED[kind, text] == sum(g.count for f in made.found for g in f.groups)
    theirs = {module.ours: module.theirs for module in known(model)}
    assert all(text in theirs[path] for path in found)
    assert bool(made.unmatched) == (not found)


def test_every_tensor_of_the_package_has_its_module(model):
    keys = [line.split("\t")[0] for line in KEYS.read_text().splitlines()[1:]]
    theirs = {module.theirs for module in known(model)}
    missing = {k.rpartition(".")[0] for k in keys} - theirs
    assert all(name.endswith("residual_scales") or name.startswith("heads.") or "rope" in name for name in missing)
    kinds = [module.kind for module in known(model)]
    assert (kinds.count(NORM), kinds.count(LINEAR), kinds.count(CONV)) == (124, 118, 38), "as the package has"


def test_what_stands_beside_is_told(model):
    (found,) = convert(read(mode="lora", lora_targets=["proj"]), model).found
    told = {group.theirs: (group.named, group.role) for group in found.groups}
    assert told["tower.blocks.*.attn_bias.proj"] == (True, "pair.bias")
    assert told["tower.blocks.*.mha.q_proj"] == (False, "attn.q")
    (found,) = convert(read(mode="lora", lora_targets=["linear_q"]), model).found
    assert {group.role for group in found.groups} == {"pair.q", "pair.row.q"}, "never the tower's own queries"
    assert "beside it" in str(convert(read(mode="lora", lora_targets=["proj"]), model))


@pytest.mark.parametrize(
    ("values", "text", "meant"),
    [
        ({"mode": "ia3"}, "to_k", "probably 'k_proj' is meant (tower.blocks.*.mha.k_proj)"),
        ({"mode": "ia3"}, "to_v", "probably 'v_proj' is meant (tower.blocks.*.mha.v_proj)"),
        ({"mode": "locon"}, "conv_tower", "probably 'down_blocks' is meant (encoder.down_blocks.*.block1.conv, "),
        ({"mode": "lora", "lora_targets": ["qproj"]}, "qproj", "did you mean q_proj"),
        ({"mode": "lora", "lora_targets": ["down_blocks"]}, "down_blocks", "but none of them is a linear map"),
    ],
)
def test_texts_that_find_nothing(model, values, text, meant):
    made = convert(read(**values), model)
    (found,) = [found for found in made.unmatched if found.text == text]
    assert meant in found.meant
    assert meant in str(made) and "matches nothing" in str(made)
    assert not made.specs


def test_globs_match_nothing_else(model):
    made = convert(read(mode="locon", locon_targets=["down_blocks.5", "block1.conv"]), model)
    assert all(spec.target.keys() == {"glob"} for spec in made.specs)
    expected = {f"encoder.stage{n}.conv1" for n in range(2, 8)} | {"encoder.stage7.conv2"}
    assert set(sites(model, made, "locon")) == expected


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.sampled_from(["q_proj", "proj", "linear", "mha", "0", "k", "fc", "bias", "8.m"]), min_size=1, max_size=3
    )
)
def test_specs_and_texts_agree(model, texts):
    """For any texts: the specs select what a plain search of names finds."""
    wanted = {m.ours for m in known(model) if m.kind == LINEAR and any(text in m.theirs for text in texts)}
    made = convert(read(mode="lora", lora_targets=list(dict.fromkeys(texts))), model)
    found = sites(model, made, "lora")
    assert (set(found), len(found)) == (wanted, len(wanted))


def test_any_subset_of_adapters_can_be_combined(model):
    values = {"locon_targets": ["down_blocks"], "ia3_targets": ["k_proj", "v_proj"], "ia3_ff_targets": ["fc2"]}
    for number in range(1, 16):
        modes = [mode for bit, mode in enumerate(ADAPTERS) if number >> bit & 1]
        made = convert(read(mode=[*modes, "linear"], **values), model)
        kinds = {spec.kind for spec in made.specs}
        assert kinds == {*modes, *(["ia3_ff"] if "ia3" in modes else [])}
        assert resolve(made.recipe).adapters == made.specs


def test_ia3_reads_before_it_gives(model):
    made = convert(read(mode="ia3", ia3_targets=["k_proj", "fc2"], ia3_ff_targets=["fc2"]), model)
    assert made.specs == (AdapterSpec("ia3", role="attn.k"), AdapterSpec("ia3_ff", role="mlp.down"))
    assert "they get ia3_ff alone" in str(made)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"mode": "lora"}, "the package's document has True, its code False; taken as False"),
        ({"mode": "locon"}, "locon_targets is not said: the package's default is conv_tower"),
        ({"mode": ["lora", "ia3"], "ia3_targets": ["k_proj"]}, "the package leaves ia3 out"),
        ({"mode": ["lora", "houlsby"]}, "the package freezes lora"),
        ({"mode": "encoder-only"}, "alphagenome_encoder_mpra"),
        ({"mode": "linear", "learning_rate": 0.0003}, "agblocks fit --lr 0.0003"),
    ],
)
def test_notes_where_package_and_project_differ(model, values, note):
    assert note in "\n".join(convert(read(**values), model).notes)


def test_the_recipe_it_becomes(model):
    made = convert(read(mode=["lora", "houlsby"], unfreeze_norm=True, **HEADS), model)
    resolved = resolve(made.recipe)
    assert resolved.adapters == made.specs
    assert resolved.info("my_atac_1bp").shape == "[B 4 L]"
    assert resolved.info("my_atac_128bp").shape == "[B 4 L/128]"
    assert set(made.train) == {"my_atac_1bp", "my_atac_128bp"}
    assert not {"atac_1bp", "dnase_128bp"} & set(resolved.heads)
    assert resolve(json.loads(json.dumps(made.recipe))).digest == resolved.digest


def test_keep_heads_and_the_packages_names_of_heads(model):
    assert heads(model)["splice_sites_usage"] == ["splice_usage"]
    made = convert(read(keep_heads=["rna_seq"]), model)
    assert set(resolve(made.recipe).heads) == {"rna_seq_1bp", "rna_seq_128bp"}


def test_it_attaches_and_trains():
    small = build("alphagenome_small", seed=0)
    made = convert(read(mode=["lora", "houlsby", "ia3"], ia3_targets=["v_proj"], lora_rank=2), small)
    adapted = adapt(small, made.specs, train=made.train)
    out = adapted(dna=torch.randn(1, 4, 2048), organism=torch.zeros(1, dtype=torch.long), outputs=["atac_128bp"])
    out["atac_128bp"].sum().backward()
    kinds = {row["kind"]: row["site"] for row in adapted.bank.report()}
    assert set(kinds) == {"lora", "houlsby", "ia3"}
    for name in kinds:
        moved = [a for a in adapted.bank.adapters("default") if a.kind.name == name]
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for a in moved for p in a.parameters()), name


# The package's own names


def stand_in(keys):
    """Modules with the package's names and shapes."""
    root = nn.Module()
    shapes = {key: tuple(map(int, re.findall(r"\d+", shape))) for key, shape in keys}
    for key, shape in shapes.items():
        path, _, last = key.rpartition(".")
        if last != "weight" or (kind := {2: nn.Linear, 3: nn.Conv1d}.get(len(shape))) is None:
            continue
        here = root
        *above, name = path.split(".")
        for part in above:
            if part not in here._modules:
                here.add_module(part, nn.Module())
            here = here._modules[part]
        with torch.device("meta"):
            here.add_module(name, kind(shape[1], shape[0], *shape[2:]) if kind is nn.Conv1d else kind(*shape[::-1]))
    return root


@pytest.fixture(scope="module")
def package():
    lines = [line.split("\t") for line in KEYS.read_text().splitlines()[1:]]
    return stand_in([(line[0], line[1]) for line in lines])


CASES = [
    {"mode": "lora", "lora_targets": ["q_proj", "proj"]},
    {"mode": ["lora", "locon"], "locon_targets": ["down_blocks.5"]},
    {"mode": "houlsby"},
    {"mode": "houlsby", "houlsby_targets": ["mlp"]},
]


@pytest.mark.parametrize("values", CASES)
def test_a_model_object_or_keys_give_its_own_names(model, package, values):
    keys = [line.split("\t")[0] for line in KEYS.read_text().splitlines()[1:]]
    ours, by_keys, by_object = (
        convert(read(**values), model), convert(read(**values), model, keys=keys), convert(read(**values), package)
    )  # fmt: skip
    assert by_keys.specs == by_object.specs
    assert by_keys.recipe is None
    theirs = {module.ours: module.theirs for module in known(model)}
    for spec in by_object.specs:
        found = select(package, spec.target)
        assert all("blocks" in path for path in found)
        if spec.kind != "houlsby":
            assert {theirs[path] for path in sites(model, ours, spec.kind)} == set(found)
        else:
            assert len(found) == len(sites(model, ours, "houlsby"))
            assert {path.rpartition(".")[2] for path in found} == set(read(**values).houlsby_targets)


def test_adapters_attach_to_the_packages_names(package):
    made = convert(read(mode="lora"), package)
    adapted = adapt(package, made.specs)
    assert adapted.bank.count() == 308_736
    adapted.detach()


# Reading


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": ["full", "lora"]}, "'full' stands alone, and cannot be combined with lora"),
        ({"mode": ["encoder-only", "linear"]}, "'encoder-only' stands alone"),
        ({"mode": "lorra"}, "mode 'lorra'; did you mean lora"),
        ({"mode": []}, "wanted one or several different ones"),
        ({"mode": ["lora", "lora"]}, "wanted one or several different ones"),
        ({"lora_ranks": 8}, "has no 'lora_ranks'; did you mean lora_rank"),
        ({"lora_rank": 0}, "lora_rank is a whole number above 0, not a whole number (0)"),
        ({"lora_rank": 4.0}, "lora_rank is a whole number above 0"),
        ({"lora_alpha": "16"}, "lora_alpha is a number above 0, not text ('16')"),
        ({"lora_targets": "q_proj"}, "lora_targets is a list of texts, not text ('q_proj')"),
        ({"lora_targets": ["q_proj", 3]}, "lora_targets is a list of texts, not a list"),
        ({"unfreeze_norm": 1}, "unfreeze_norm is true or false, not a whole number (1)"),
        ({"houlsby_placement": "blocks"}, "houlsby_placement 'blocks'; did you mean block"),
        ({"houlsby_targets": ["q_proj"]}, "block placement has mha and mlp"),
        ({"remove_heads": ["atac"], "keep_heads": ["dnase"]}, "wanted one of the two"),
        ({"new_heads": ["atac"]}, "new_heads maps a head's name to its settings"),
    ],
)
def test_wrong_configurations(values, message):
    with pytest.raises(AgblocksError, match=re.escape(message)):
        read(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"remove_heads": ["atak"]}, "no head 'atak' to remove or keep; did you mean atac"),
        ({"new_heads": {"a": {"num_tracks": 4}}}, "new_heads.a: modality None"),
        ({"new_heads": {"a": {"modality": "atac"}}}, "num_tracks is a whole number above 0, not None"),
        (
            {"new_heads": {"a": {"modality": "atac", "tracks": 4}}},
            "new_heads.a has no 'tracks'; did you mean num_tracks",
        ),
        ({"new_heads": {"a": {"modality": "chip_tf", "num_tracks": 4}}}, "resolutions [1, 128]; chip_tf has 128"),
        ({"new_heads": {"a": {"modality": "contact_maps", "num_tracks": 4}}}, "contact_maps is no head of tracks"),
    ],
)
def test_wrong_heads(model, values, message):
    with pytest.raises(AgblocksError, match=re.escape(message)):
        convert(read(**values), model)


def test_models_without_any_of_its_names():
    with pytest.raises(AgblocksError, match="nothing here is in alphagenome-pytorch"):
        convert(read(mode="lora"), build("enformer_small", device="meta"))


def test_the_encoder_alone():
    encoder = build("alphagenome_encoder_mpra", device="meta")
    made = convert(read(mode="locon", locon_targets=["down_blocks.5"]), encoder, base="alphagenome_encoder_mpra")
    assert adapt(encoder, made.specs).bank.count() == 71_168
    assert convert(read(mode="lora"), encoder).unmatched


def test_texts_and_json_say_the_same():
    texts = ["mode=lora,ia3", "lora_rank=4", "lora_targets=q_proj, k_proj", "unfreeze_norm=true", "lora_alpha=2.5",
             "new_heads={my_atac: {modality: atac, num_tracks: 4}}", "remove_heads=[atac]"]  # fmt: skip
    assert TransferConfig.parse(texts) == read(
        mode=["lora", "ia3"], lora_rank=4, lora_targets=["q_proj", "k_proj"], unfreeze_norm=True, lora_alpha=2.5,
        new_heads=NEW, remove_heads=["atac"],
    )  # fmt: skip
    for wrong in (["mode"], ["mode=lora", "mode=ia3"]):
        with pytest.raises(AgblocksError):
            TransferConfig.parse(wrong)


# The command


def said(*command, catch=True):
    return CliRunner().invoke(app(), ["adapters", "convert", *command], catch_exceptions=catch)


def test_the_command_prints_and_counts(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"mode": "lora", "lora_rank": 8, "lora_alpha": 16}))
    lines = said(str(path)).output.splitlines()
    assert lines[0] == "mode lora"
    assert "  9 x tower.blocks.*.mha.q_proj = tower.layer*.attention.q, role attn.q" in lines
    assert "lora:role=attn.q+attn.v: 18 sites, 308,736 parameters" in lines
    assert said("mode=lora", "lora_rank=8", "lora_alpha=16").output.splitlines() == lines


def test_the_command_writes_the_recipe(tmp_path):
    text = said("mode=houlsby", f"new_heads={json.dumps(NEW)}", "remove_heads=atac", "--yaml").output
    (tmp_path / "transferred.yaml").write_text(text)
    resolved = resolve(tmp_path / "transferred.yaml")
    assert [str(spec) for spec in resolved.adapters] == ["houlsby:role=block.attn+block.mlp"]


def test_the_command_takes_the_packages_keys():
    assert "lora:glob=tower.blocks.*.mha.q_proj+" in said("mode=lora", "--names", str(KEYS)).output


def test_the_command_says_what_was_meant_and_fails():
    with pytest.raises(AgblocksError, match=r"nothing in alphagenome is called 'to_k', 'to_v'"):
        said("mode=ia3", catch=False)
    assert "probably 'k_proj' is meant" in said("mode=ia3").output


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("[1]", "a TransferConfig is a mapping"), (None, "cannot be read")]
)
def test_files_that_are_none(tmp_path, text, message):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(AgblocksError, match=message):
        said(str(path), catch=False)
