"""Studies: which parts of a model transfer, and what each costs; planned, run, resumed, reported.

    from agblocks.studies import load_study, plan, run_study
    planned = plan(load_study("stage_transfer", "vary.seed=[0]"))
    run_study(planned, "out/")

A study is a YAML file; see docs/studies.md.
"""

from .errors import StudyError, WorkError
from .file.find import load_study, shipped_studies
from .file.study import Study
from .planning.cell import Cell
from .planning.plan import Entry, Plan, plan
from .run import Summary, run_study

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
