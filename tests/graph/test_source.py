"""Strict YAML: what is read, what is refused, and that hostile files are refused quickly."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agblocks import RecipeError
from agblocks.graph.source import from_python, read_text


def test_yaml_is_1_2_and_remembers_places():
    tree = read_text("a: {b: [1e-3, on, 0o17, 'x', ~, true]}\nc: 1\n")
    assert tree.plain() == {"a": {"b": [0.001, "on", 15, "x", None, True]}, "c": 1}
    assert str(tree.keys["c"]) == "recipe:2:1"
    assert str(tree.find(("a", "b", 1)).mark) == "recipe:1:15"


REFUSED = {
    "twice": ("a: 1\na: 2\n", "recipe:2:1: key 'a' is given twice; first at recipe:1:1"),
    "anchor": ("a: &x 1\n", "recipe:1:4: an anchor or alias (& or *), which a recipe does not use"),
    "alias": ("a: *x\n", "recipe:1:4: an anchor or alias"),
    "tag": ("a: !!python/object:os.system x\n", "recipe:1:4: a tag ("),
    "merge": ("<<: {a: 1}\n", "recipe:1:1: a merge key (<<)"),
    "directive": ("%YAML 1.1\n---\na: yes\n", "a YAML directive"),
    "documents": ("a: 1\n---\nb: 2\n", "a second document"),
    "nan": ("a: .nan\n", "recipe:1:4: nan is not a finite number"),
    "infinite": ("a: -.inf\n", "recipe:1:4: -inf is not a finite number"),
    "huge": ("a: 99999999999999999999\n", "a whole number larger than 64 bits"),
    "control": ("a: \x07\n", "control character '\\x07'"),
    "number key": ("1: a\n", "a key should be text, not 1; put it in quotes"),
    "list key": ("[1]: a\n", "a key should be text, not a list or a mapping"),
    "open": ("a: [\n", "not YAML: while parsing a flow node"),
    "tab": ("a:\n\tb: 1\n", "not YAML: while scanning for the next token"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    text, said = REFUSED[name]
    with pytest.raises(RecipeError) as caught:
        read_text(text)
    assert said in str(caught.value)


HOSTILE = {
    "deep": "'a: ' + '[' * 100_000",
    "deep block": "'\\n'.join(' ' * i + 'a:' for i in range(400))",
    "scalar": "'a: ' + 'x' * 50_000_000",
    "long list": "'a: [' + '1,' * 30_000 + ']'",
    "many keys": "'\\n'.join(f'k{i}: v' for i in range(12_000))",
    "aliases": "'a: &a [x]\\n' + '\\n'.join(f'b{i}: [*a, *a, *a]' for i in range(1000))",
    "digits": "'a: ' + '1' * 100_000",
    "escapes": "'a: ' + chr(34) + chr(92) + 'x41' * 30_000",
    "documents": "'---\\n' * 30_000",
    "empty lines": "'\\n' * 120_000",
    "comment": "'#' * 120_000",
    "bytes": "bytes(range(256)) * 100",
}


PROGRAM = """
import json, resource, sys, time
import agblocks
from agblocks.graph import resolve
for path in sys.argv[1:]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    try:
        agblocks.resolve(path)
    except agblocks.RecipeError as error:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(json.dumps([time.process_time() - start, grown, str(error)]))
"""


def test_hostile_files_end_in_two_seconds_and_500_mb(tmp_path):
    """In a process of its own: a short message each, in bounded time and memory beyond the imports."""
    files = []
    for name, expression in HOSTILE.items():
        data = eval(expression)
        files.append(tmp_path / f"{name.replace(' ', '_')}.yaml")
        files[-1].write_bytes(data if isinstance(data, bytes) else data.encode())
    command = [sys.executable, "-c", PROGRAM, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(HOSTILE)
    for name, (seconds, megabytes, message) in zip(HOSTILE, results, strict=True):
        assert seconds < 2, name
        assert megabytes < 500, name
        assert len(message) < 2000, name


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
def test_python_values_pass_unchanged(value):
    assert from_python(value).plain() == value


@given(st.text(max_size=60))
def test_any_text_is_a_tree_or_a_recipe_error(text):
    try:
        read_text(text)
    except RecipeError as error:
        assert error.problems


def test_python_values_that_are_none():
    for bad in ({1: 2}, {"a": float("nan")}, {"a": object()}, {"a": 2**70}, {"a": b"x"}):
        with pytest.raises(RecipeError):
            from_python(bad)
    nested: list = []
    nested.append(nested)
    with pytest.raises(RecipeError, match="nested deeper"):
        from_python(nested)
