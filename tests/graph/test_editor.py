"""The JSON Schema for editors accepts what resolves and refuses what does not."""

import json
from pathlib import Path

import jsonschema
import pytest

from agblocks.graph.editor import json_schema
from agblocks.graph.find import shipped
from agblocks.graph.source import read_file

VALIDATOR = jsonschema.Draft202012Validator(json.loads(json.dumps(json_schema())))
BROKEN = Path(__file__).parents[1] / "recipes" / "broken"


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_fit(name):
    VALIDATOR.validate(read_file(shipped()[name]).plain())


@pytest.mark.parametrize("name", ["unknown_block", "wrong_arguments", "wrong_form"])
def test_wrong_forms_do_not(name):
    assert list(VALIDATOR.iter_errors(read_file(BROKEN / f"{name}.yaml").plain()))
