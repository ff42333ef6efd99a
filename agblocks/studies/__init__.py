"""Studies: which parts of a model transfer, and what each costs; planned, run, resumed, reported.

    from agblocks.studies import load_study, plan, run_study
    planned = plan(load_study("stage_transfer", "vary.seed=[0]"))
    run_study(planned, "out/")

A study is a YAML file; see docs/studies.md.
"""

from .cell import Cell
from .errors import StudyError, WorkError
from .find import load_study, shipped_studies
from .plan import Entry, Plan, plan
from .run import Summary, run_study
from .study import Study

__all__ = [
    "Cell",
    "Entry",
    "Plan",
    "Study",
    "StudyError",
    "Summary",
    "WorkError",
    "load_study",
    "plan",
    "run_study",
    "shipped_studies",
]
