"""Verbs: base, remove, replace, set, new nodes; nested recipes; overrides; digests and diffs."""

import pytest

from agblocks import InputError, RecipeError, diff, resolve

BASE = """
recipe: 1
name: base
inputs: {dna: B 4 L}
nodes:
  encoder: {block: encoder.alphagenome, in: dna, args: {channels: 8, growth: 4, stages: 3}}
  mix: {block: conv.block, in: encoder}
heads:
  activity: {block: head.scalar, in: mix, weight: 2}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)

    def write(text, name="mine"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"recipe: 1\nname: {name}\nbase: base\n{text}")
        return path

    return write


def said(recipe, *overrides):
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, *overrides)
    return str(caught.value)


def test_a_base_alone_changes_nothing(folder):
    assert diff(resolve(folder("")), resolve(BASE)) == []
    assert resolve(folder("")).digest == resolve(BASE).digest


def test_set_names_arguments_wiring_stages_and_inputs(folder):
    mine = resolve(
        folder("set: {encoder.stages: 4, encoder.stage2.kernel: 7, mix.in: encoder.stage3, inputs.dna: B 4 128}")
    )
    assert mine.nodes["encoder.stage2"].args["kernel"] == 7
    assert mine.nodes["mix"].inputs == {"x": "encoder.stage3"}
    assert mine.info("mix").shape == "[B 16 32]"
    assert [str(c) for c in diff(resolve(BASE), mine)] == [
        "~ inputs.dna: [B 4 L] -> [B 4 128]",
        "~ encoder.stage1.shape: [B 8 L] -> [B 8 128]",
        "~ encoder.stage2.args.kernel: 5 -> 7",
        "~ encoder.stage2.shape: [B 12 L/2] -> [B 12 64]",
        "~ encoder.stage3.shape: [B 16 L/4] -> [B 16 32]",
        "- encoder.pool: pool.max() in encoder.stage3",
        "~ mix.in.x: encoder.pool -> encoder.stage3",
        "~ mix.shape: [B 16 L/8] -> [B 16 32]",
    ]


def test_overrides_are_settings(folder):
    by_line = resolve(folder(""), "encoder.stage2.kernel=7", "mix.in.x=encoder.stage1", "activity.hidden=[4, 4]")
    by_file = resolve(folder("set: {encoder.stage2.kernel: 7, mix.in.x: encoder.stage1, activity.hidden: [4, 4]}"))
    assert by_line.digest == by_file.digest
    assert list(by_line.nodes) == ["encoder.stage1", "mix", "activity"]


def test_replace_keeps_the_wiring_unless_told(folder):
    mine = resolve(folder("replace:\n  encoder.stage2: {block: conv.down, args: {growth: 8, pool: 4}}"))
    assert mine.nodes["encoder.stage2"].inputs == {"x": "encoder.stage1"}
    assert mine.info("encoder").shape == "[B 20 L/16]"
    mine = resolve(folder("replace: {activity: {block: head.scalar, args: {targets: 3}}}"))
    assert mine.heads == {"activity": 2.0}
    assert mine.info("activity").shape == "[B 3]"


def test_remove_and_new_heads(folder):
    mine = resolve(folder('remove: ["heads.*"]\nheads:\n  other: {block: head.scalar, in: encoder.stage1}'))
    assert list(mine.nodes) == ["encoder.stage1", "other"]
    assert mine.dropped == ("mix", "encoder.stage2", "encoder.stage3", "encoder.pool")
    with pytest.raises(InputError, match="'encoder' was dropped, as no head reads it"):
        mine.edge("encoder")
    with pytest.raises(InputError, match="there is no output 'encoder.stage9'"):
        mine.edge("encoder.stage9")


def test_stage_verbs_wait_for_several_layers(folder):
    folder("set: {encoder.stage2.growth: 8}", "first")
    second = folder("", "second")
    second.write_text(second.read_text().replace("base: base", "base: first"))
    assert resolve(second, "encoder.stage2.kernel=7").info("encoder.stage2").shape == "[B 16 L/2]"
    assert resolve(second, "encoder.stage2.growth=2").info("encoder.stage2").shape == "[B 10 L/2]"
    third = folder("replace: {encoder.stage2: {block: conv.down, args: {pool: 2}}}", "third")
    third.write_text(third.read_text().replace("base: base", "base: first"))
    assert resolve(third).nodes["encoder.stage2"].args["growth"] == 128


def test_a_nested_recipe_is_a_node(folder, tmp_path):
    folder("")
    outer = tmp_path / "outer.yaml"
    outer.write_text(
        "recipe: 1\ninputs: {seq: B 4 L}\nnodes:\n"
        "  part: {recipe: base.yaml, in: seq, args: {encoder.growth: 8}}\n"
        "heads:\n  y: {block: head.scalar, in: part.encoder.stage2}\n  z: {block: head.scalar, in: part.mix}\n"
    )
    mine = resolve(outer, "part.encoder.stage2.kernel=3")
    assert mine.nodes["part.encoder.stage1"].inputs == {"x": "seq"}
    assert mine.nodes["part.encoder.stage2"].args["kernel"] == 3
    assert mine.info("y").shape == "[B 1]"
    assert mine.info("part.encoder").shape == "[B 24 L/8]"
    assert resolve(mine.recipe).digest == mine.digest  # self-contained: the nested recipe is written out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("remove: [mxi]", "mine.yaml:4:10: remove: there is no node 'mxi' to remove; did you mean mix?"),
        ("replace: {mxi: {block: conv.block}}", "mine.yaml:4:11: replace.mxi: there is no node 'mxi' to replace; did you mean mix?"),
        ("nodes: {mix: {block: conv.block, in: dna}}", "mine.yaml:4:9: nodes.mix: 'mix' exists already; use 'replace'"),
        ("inputs: {dna: B 4 128}", "input 'dna' exists; change it by 'set: {inputs.dna: B 4 128}'"),
        ("set: {inputs.rna: B 4 128}", "there is no input 'rna'; did you mean dna?"),
        ("set: {mix: 3}", "'mix' names no argument of a node"),
        ("remove: [encoder.stage3]", "encoder.stage3' was removed at"),
        ("remove: [mix]\nreplace: {mix: {block: conv.block}}", "'replace' and 'remove' in one recipe claim the same node 'mix'"),
        ("replace: {encoder: {block: conv.block}}\nset: {encoder.stage2.kernel: 3}", "claim the same node 'encoder'"),
        ("replace: {mix: {block: conv.block}}\nset: {mix.kernel: 3}", "'set' and 'replace' in one recipe claim the same node 'mix'"),
        ("set: {encoder.stage2.pool: 4}\nheads: {u: {block: head.scalar, in: up}}\nnodes: {up: {block: conv.up, in: {x: encoder.stage2, skip: encoder.stage1}}}",
         "'encoder.stage2' is [B 12 L/4]"),
        ("keep: [decoder]", "nothing is named 'decoder'"),
    ],
)  # fmt: skip
def test_what_is_said_of_verbs(folder, text, message):
    if "is [B 12" in message:
        message = "axis 'L*factor' of 'skip' should be L/2, but 'encoder.stage1' has L"
    assert message in said(folder(text))


def test_an_error_caused_by_a_verb_names_the_verb_too(folder):
    path = folder("set:\n  mix.kernel: 4\n")
    message = said(path)
    assert f"{path}:5:15: nodes.mix.args.kernel: 4 is not a whole number, > 0, < 65536, odd" in message
    assert f"nodes.mix (base.yaml:7:3) was set at {path}:5:3" in message
    assert "command line:1:12" in said(path.with_name("base.yaml"), "mix.kernel=4")


def test_paths_stay_in_the_named_folder(folder, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    for base in ("../base.yaml", str(tmp_path / "base.yaml"), "/etc/passwd"):
        (inner / "mine.yaml").write_text(f"recipe: 1\nbase: {base}\n")
        folder("")
        assert "outside 'inner'" in said(inner / "mine.yaml")
    (inner / "link.yaml").symlink_to(tmp_path / "base.yaml")
    (inner / "mine.yaml").write_text("recipe: 1\nbase: link.yaml\n")
    assert "outside 'inner'" in said(inner / "mine.yaml")


def test_digests_know_what_is_computed_and_nothing_else():
    renamed = (
        BASE.replace("encoder", "front").replace("front.alphagenome", "encoder.alphagenome").replace("mix", "blend")
    )
    assert resolve(renamed).digest == resolve(BASE).digest
    lines = BASE.strip().splitlines()
    reordered = "\n".join([*lines[3:], *lines[:3], "# a remark"])
    assert resolve(reordered).digest == resolve(BASE).digest
    assert resolve(BASE, "mix.kernel=5").digest == resolve(BASE).digest  # the default, said aloud
    assert resolve(BASE, "mix.kernel=7").digest != resolve(BASE).digest
    assert resolve(BASE, "inputs.dna=B 4 64").info("mix").digest == resolve(BASE).info("mix").digest


def test_frozen_digests_of_shipped_recipes():
    """A change here breaks stored weights and caches: it wants a line in the changelog."""
    assert {name: resolve(name).digest[:12] for name in FROZEN} == FROZEN


FROZEN = {
    "alphagenome": "d64abc7db9b6",
    "alphagenome_small": "4583011904c6",
    "alphagenome_encoder_mpra": "7b3d942f6e96",
    "borzoi": "47a4d0cf538f",
    "borzoi_encoder_mpra": "cce06cb5f55a",
    "borzoi_small": "78e1aca0097f",
    "deepstarr": "93d9ba4aa35d",
    "dream_attn": "dada4c545427",
    "dream_cnn": "fde7c0f5bd22",
    "dream_rnn": "338f5e08a8a2",
    "enformer": "9c8b2c1a0745",
    "enformer_encoder_mpra": "3179f86eb2bd",
    "enformer_small": "ea4b8486fd97",
    "enformer_style": "0bb7a667af3d",
    "flashzoi": "9c8a7bcf5824",
    "flashzoi_small": "1c308acc94f6",
    "mpra_attention": "a352b51ec673",
    "mpra_small": "1c25fa64e76c",
    "mpralegnet": "c931d71d9c4c",
    "mpralegnet_example": "de06495a76bc",
    "tiny": "d9ce8fbe3a87",
}
