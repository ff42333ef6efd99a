"""The house: who imports whom, what importing costs, which names are public."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import agblocks

PACKAGE = Path(agblocks.__file__).parent
ROOMS = ("blocks", "encoders", "towers", "decoders", "heads")

# What each room may import of the package, itself aside.
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "_torchvision": set(),
    "graph": {"errors"},
    "layers": {"_torchvision"},
    **{room: {"errors", "graph", "layers", "_torchvision"} for room in ROOMS},
    "data": {"errors", "files"},
    "adapters": {
        "errors",
        "files",
        "graph",
        "layers",
        "weights",
        "",
    },  # weights: the names that other packages give modules
    "weights": {"errors", "files", "graph", ""},
    "testing": {"errors", "graph", "layers", "adapters", "_torchvision", ""},
    "training": {"errors", "files", "graph", "layers", "adapters", "weights", "data", "_torchvision", ""},
    "studies": {"errors", "files", "graph", "layers", "adapters", "weights", "data", "training", "_torchvision", ""},
    "cli": {"errors", "studies", "graph", "data", "training", "testing", "weights", "adapters", "_torchvision", ""},
}
LAZY_GRAPH = {"build", "model", "resolve", "resolved", "expand", "place", "wire", "state", "nested", "patch"}


def imports(path):
    """(room, rest, at the top of the module) of everything of the package that a file imports."""
    here = ["agblocks", *path.relative_to(PACKAGE).with_suffix("").parts][:-1]
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "agblocks":
                yield (parts[1] if len(parts) > 1 else ""), parts[2:], node in tree.body


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_who_imports_whom(path):
    room = path.relative_to(PACKAGE).parts[0]
    known = {p.stem for p in PACKAGE.glob("*.py")} | {p.name for p in PACKAGE.iterdir() if p.is_dir()}
    for other, rest, _ in imports(path):
        other = other if other in known else ""  # a name of the package itself
        assert other == room or other in ALLOWED[room], f"{room} imports {other or 'agblocks'}"
        if room in ROOMS and other == "graph":
            assert not LAZY_GRAPH.intersection(rest[:1]), f"a block imports the resolver: {rest}"


HEAVY = ("timm", "x_transformers", "lightning", "torchvision", "sklearn", "polars", "pydantic", "ruamel", "hypothesis",
         "matplotlib", "typer", "rich", "torchmetrics", "pooch", "h5py")  # fmt: skip


def loaded(statement):
    program = f"import sys; {statement}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_loads_nothing_heavy():
    assert not loaded("import agblocks, agblocks.data").intersection(HEAVY)


def test_reading_a_recipe_does_no_tensor_work():
    """No tensor is allocated by resolving, checked where tensors come from."""
    program = (
        "import torch; from torch.utils._python_dispatch import TorchDispatchMode\n"
        "import agblocks\nagblocks.resolve('tiny')\n"
        "class Refuse(TorchDispatchMode):\n"
        "    def __torch_dispatch__(self, func, types, args=(), kwargs=None): raise AssertionError(func)\n"
        "with Refuse(): agblocks.resolve('alphagenome')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_public_names():
    assert agblocks.__all__ == PUBLIC
    assert all(hasattr(agblocks, name) for name in PUBLIC)


PUBLIC = [
    "Adapted", "AdapterSpec", "Block", "Edge", "GraphModel", "Head", "InputError", "Misfit", "Nodes", "Problem",
    "Pyramid", "RecipeError", "RegistrationError", "Resolved", "adapt", "build", "composite", "diff",
    "load_weights", "register", "reset_parameters", "resolve",
]  # fmt: skip


def test_recipe_keys_and_commands():
    from agblocks.cli import app
    from agblocks.graph.schema import HEAD_KEYS, NODE_KEYS, RECIPE_KEYS

    assert RECIPE_KEYS == (
        "recipe", "name", "base", "inputs", "nodes", "heads", "remove", "replace", "set", "keep", "cut", "adapters"
    )  # fmt: skip
    assert NODE_KEYS == ("block", "recipe", "in", "args", "shape")
    assert (*NODE_KEYS, "weight") == HEAD_KEYS
    made = app()
    assert sorted(c.name for c in (*made.registered_commands, *made.registered_groups)) == COMMANDS


COMMANDS = [
    "adapters", "blocks", "check", "convert", "crossval", "demo", "diff", "evaluate", "fit", "predict", "schema", "show",
    "study", "tracks",
]  # fmt: skip
