"""What the numbers of a study allow to be said: means and paired differences over (fold, seed) units, corrected.

from agblocks.studies.statistics import Unit, paired
units = {"stage3": [Unit("0", "0", ids, observed, predicted), ...], "stage7": [...]}
print(paired(units, "stage7")["stage3"].sentence)    # better by 0.031 [0.012, 0.050]
"""

from .means import Mean, means
from .paired import Difference, paired
from .pareto import Share, pareto, shares
from .spread import Spread
from .units import Unit, UnitsError

__all__ = ["Difference", "Mean", "Share", "Spread", "Unit", "UnitsError", "means", "paired", "pareto", "shares"]
