"""What is wrong with a study is told before anything is run: all of it, each with its place."""

import pytest
from study_helpers import PROBES, TRANSFER, planned

from agblocks.studies import StudyError, load_study

WRONG = [  # what to change, into what, and what has to be said
    ("study: 1", "study: 2", ["study:2:8: study: the first key should be 'study: 1', the version of the form"]),
    ("  recipe: tiny", "  recipee: tiny", ["cell.recipee: a cell has no 'recipee'; did you mean recipe?"]),
    ("  fit: ridge", "  fit: rigde", ["cell.fit: fit is 'rigde'; did you mean ridge?"]),
    ("data: sim", "data: sin", ["cell.data: there are no rows called 'sin'; did you mean sim?"]),
    (
        "head.pool: max",
        "head.pol: max",
        ["vary.pool.peak.head.pol: there is no 'pol' in 'head'; did you mean pool or pool_at?"],
    ),
    ("[kmer]", "[kmers]", ["controls: controls has text ('kmers'); did you mean kmer?"]),
    ("fold: [", "folds: [", ["vary.folds: a cell has no 'folds'; did you mean fold?; an axis of another name maps"]),
    ("x: tap", "x: taps", ["report.x: there is no axis 'taps'; did you mean tap?"]),
    ("name: probes", "nam: probes", ["nam: there is no key 'nam' here; did you mean name?"]),
    ("[encoder.stage1, ", "[encoder.stage1, encoder.stage1, ", ["vary.tap: 'encoder.stage1' is an option twice"]),
    ("head.pool: mean", "head.pool: mean, fit: 3", ["vary.pool.mean.fit: fit is 3; there is: gradient, kmer, ridge"]),
]


@pytest.mark.parametrize(("old", "new", "said"), WRONG, ids=[new.strip() for _, new, _ in WRONG])
def test_the_form(old, new, said):
    assert PROBES.count(old) >= 1
    with pytest.raises(StudyError) as caught:
        load_study(PROBES.replace(old, new, 1))
    for text in said:
        assert text in str(caught.value)
    assert all(problem.mark is not None and problem.mark.text for problem in caught.value.problems)


def test_everything_that_is_wrong_comes_at_once():
    text = PROBES
    for old, new, _ in WRONG[1:6]:
        text = text.replace(old, new, 1)
    with pytest.raises(StudyError) as caught:
        load_study(text)
    assert len(caught.value.problems) == 5
    assert [p.mark.line for p in caught.value.problems] == sorted(p.mark.line for p in caught.value.problems)


NOT_WORKING = [
    ("encoder.stage3]", "encoder.stage9]", "tap: nothing is named 'encoder.stage9'; did you mean encoder.stage"),
    ('fold: ["0", "3"]', 'fold: ["0", "7"]', "fold: test: there is no fold '7'"),
    ("recipe: tiny", "recipe: tinny", "recipe: there is no shipped recipe 'tinny'"),
    ("recipe: tiny", "recipe: tiny\n  set: {encoder.channel: 4}", "set.encoder.channel: "),
    ("recipe: tiny", "recipe: tiny\n  rows: 5000", "rows: 5000 of 5"),
    ("head.pool: max", "head.pool: attention", "pool is 'attention'"),
    ("{tap: encoder.stage3, pool: mean}", "{tap: encoder.stag, pool: mean}", "reference.tap: axis 'tap' has no option"),
]


@pytest.mark.parametrize(("old", "new", "said"), NOT_WORKING, ids=[new for _, new, _ in NOT_WORKING])
def test_cells_that_cannot_work_are_told_before_the_first_starts(old, new, said):
    """With the place in the file, and where in the grid."""
    with pytest.raises(StudyError) as caught:
        planned(PROBES.replace(old, new, 1))
    assert said in str(caught.value)
    if "reference" not in said:
        assert "tap=encoder.stage" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("transfer.weights=bas", "there are no weights 'bas'"),
        ("transfer.tune=last:x", "transfer.tune"),
        ("training={epochs: 1, shift: 5, shift_mode: flanks}", "a shift of 5 needs 5 bases of flank_left"),
        ("transfer.tune=encoder.stage8", "encoder.stage8"),
        ("training.epochs=0", "epochs is 0"),
        ("training.epoch=1", "there is no 'epoch' in 'training'; did you mean epochs?"),
        ("training.seed=1", "there is no 'seed' in 'training'"),
        ("transfer.reinit=encoder.stage8", "encoder.stage8"),
        ("transfer.adapters=['lora:role=attn.q']", "lora"),
        (
            "set.encoder.channels=8",
            "is another block here than in 'base', so its weights do not fit: channels is 8 here",
        ),
    ],
)
def test_transfer_and_training(override, said):
    with pytest.raises(StudyError) as caught:
        planned(TRANSFER, f"cell.{override}")
    assert said in str(caught.value)


def test_what_cannot_work_comes_at_once_too():
    with pytest.raises(StudyError) as caught:
        planned(TRANSFER, "cell.training.epochs=0", "vary.tap=[encoder.stage8]", "reference={control: full, way: prob}")
    said = str(caught.value)
    assert "epochs is 0" in said and "encoder.stage8" in said and "axis 'way' has no option 'prob'" in said


def test_two_axes_that_set_the_same():
    text = PROBES.replace("  fold:", "  way: {a: {head.pool: sum}, b: {}}\n  fold:")
    with pytest.raises(StudyError, match="axes 'pool' and 'way' both set 'head.pool'"):
        load_study(text)


def test_overrides():
    """They change what the file says, however it says it, and take it back."""
    study = load_study(
        TRANSFER, "cell.training.epochs=7", "vary.seed=[1, 2]", "vary.fold=null", "cell.fold='2'", "controls=[]"
    )
    assert study.base["training.epochs"].value == 7 and study.controls == ()
    assert [[o.label for o in axis.options] for axis in study.axes if axis.name == "seed"] == [["1", "2"]]
    assert "fold" not in [axis.name for axis in study.axes] and study.base["fold"].value == "2"
    assert load_study(TRANSFER, "data.sim.simulate={n: 50, length: 30}").data["sim"]["simulate"].plain()["n"] == 50
    with pytest.raises(StudyError, match=r"command line:1:22.*epochs is 'zero'") as caught:
        planned(TRANSFER, "cell.training.epochs=zero")
    assert "cell.training.epochs=zero" in str(caught.value)
    with pytest.raises(StudyError, match="an override is 'path=value'"):
        load_study(TRANSFER, "cell.training.epochs")


def test_a_leak_between_assays_is_refused():
    """A model that trained on the rows that are held out here is no start."""
    with pytest.raises(StudyError, match="sequences that are held out here; give that model the same fold"):
        planned(TRANSFER, "pretrain.base.data=sim")
    made = planned(TRANSFER, "pretrain.base.data=sim", "pretrain.base.fold=each")
    assert all(set(made.cells[need].document["test"]) == {"0"} for c in made.cells.values() for need in c.needs)
