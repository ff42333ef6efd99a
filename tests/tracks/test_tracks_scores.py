"""Correlations from sums, against numpy on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agblocks.training import RunError
from agblocks.training.tracks.moments import AcrossScore, Moments, TrackScore, back

NAMES, UNIT = ("a", "b", "c"), (2.0, 1.0, 5.0)


def values(seed=0, windows=12, bins=30):
    rng = np.random.default_rng(seed)
    wanted = rng.gamma(1.0, 5.0, (windows, 3, bins))
    made = np.maximum(0.3 * wanted + rng.gamma(1.0, 2.0, wanted.shape), 0)
    wanted[rng.random(wanted.shape) < 0.1] = np.nan
    return made, wanted


def summed(made, wanted, blocks=None, parts=4):
    sums = Moments("h", NAMES, 32, UNIT)
    for rows in np.array_split(np.arange(len(made)), parts):
        sums.add(torch.from_numpy(made[rows]), torch.from_numpy(wanted[rows]), None if blocks is None else blocks[rows])
    return sums


def test_correlations_are_those_of_all_bins():
    made, wanted = values()
    scores, across = summed(made, wanted).scores()
    for i, score in enumerate(scores):
        p, o = made[:, i].ravel(), wanted[:, i].ravel()
        p, o = p[~np.isnan(o)], o[~np.isnan(o)]
        assert (score.track, score.n, score.head, score.resolution) == (NAMES[i], len(o), "h", 32)
        assert score.pearson == pytest.approx(np.corrcoef(p, o)[0, 1], abs=1e-10)
        assert score.log_pearson == pytest.approx(np.corrcoef(np.log1p(p), np.log1p(o))[0, 1], abs=1e-10)
        assert score.mse == pytest.approx(np.mean((p - o) ** 2))
    found = []
    for w in range(len(made)):
        for b in range(made.shape[2]):
            p, o = made[w, :, b] / UNIT, wanted[w, :, b] / UNIT
            if not np.isnan(o).any():
                found.append(np.corrcoef(np.log1p(p), np.log1p(o))[0, 1])
    assert across.n == len(found) and across.pearson == pytest.approx(np.mean(found), abs=1e-10)


def test_intervals_are_of_resampled_blocks():
    made, wanted = values(1)
    blocks = np.arange(12) // 2
    scores, across = summed(made, wanted, blocks).scores(bootstrap=400, seed=5)
    drawn = np.random.default_rng(5).multinomial(6, np.full(6, 1 / 6), size=400)
    found = []
    for counts in drawn:
        rows = np.repeat(np.arange(12), counts[blocks])
        p, o = made[rows, 1].ravel(), wanted[rows, 1].ravel()
        there = ~np.isnan(o)
        found.append(np.corrcoef(p[there], o[there])[0, 1])
    assert scores[1].blocks == 6
    np.testing.assert_allclose(scores[1].pearson_interval, np.percentile(found, [2.5, 97.5]), atol=1e-9)
    assert across.interval[0] < across.pearson < across.interval[1]
    assert np.isnan(summed(made, wanted).scores(bootstrap=10)[0][0].pearson_interval[0])  # a single block


def test_what_has_no_correlation_says_why():
    made, wanted = values(2)
    made[:, 0], wanted[:, 1], wanted[:, 2] = 0.1, 7.3, np.nan
    scores, across = summed(made, wanted).scores()
    assert [s.reason for s in scores] == [
        "all predictions are 0.1",
        "all measurements are 7.3",
        "0 bins; a correlation wants at least 3",
    ]
    assert all(np.isnan(s.pearson) for s in scores) and np.isnan(across.pearson)
    assert back(scores[0].to_dict())["track"] == "a" and scores[0].to_dict()["pearson"] is None
    assert isinstance(TrackScore(**back(scores[0].to_dict())), TrackScore)
    assert isinstance(AcrossScore(**back(across.to_dict())), AcrossScore)


def test_predictions_that_are_not_finite_are_refused():
    made, wanted = values(3)
    made[0, 0, 0], wanted[0, 0, 0] = np.nan, np.nan
    summed(made, wanted)  # nothing was measured there
    made[1, 0, 0], wanted[1, 0, 0] = np.inf, 1.0
    with pytest.raises(RunError, match="not finite"):
        summed(made, wanted)
