"""Training of models on measured sequences: fit, evaluate, predict, and the run folder that holds it all.

    from agblocks.training import Settings, fit, load_run, predict
    run = fit("mpra_small", table, splits, "run/", Settings(epochs=30))
    predict(load_run("run/"), read_sequences("designs.fa"))

Lightning, scikit-learn, safetensors and matplotlib are imported by the functions that use them.
"""

# Some functions are named as their module: importing them here, at once, settles that the name is the function.
from .baseline.ridge import Ridge, RidgeProbe, fit_ridge, fit_ridge_features
from .crossval import crossval
from .errors import RunError
from .fit import fit
from .predict import predict, write_predictions
from .run import Run, load_run, save_run
from .scores.evaluate import Evaluation, evaluate
from .scores.metrics import Score, score
from .settings import Settings
from .sources import Source, read_data
from .tuning.fields import TransferError
from .tuning.frozen import freeze
from .tuning.groups import parameter_groups
from .tuning.plan import Part, Plan, plan
from .tuning.transfer import Transfer
from .tuning.tune import Tune
from .tuning.unfreeze import Unfreeze
from .wiring import Target, Wiring, wire

__all__ = [
    "Evaluation",
    "Part",
    "Plan",
    "Ridge",
    "RidgeProbe",
    "Run",
    "RunError",
    "Score",
    "Settings",
    "Source",
    "Target",
    "Transfer",
    "TransferError",
    "Tune",
    "Unfreeze",
    "Wiring",
    "crossval",
    "evaluate",
    "fit",
    "fit_ridge",
    "fit_ridge_features",
    "freeze",
    "load_run",
    "parameter_groups",
    "plan",
    "predict",
    "read_data",
    "save_run",
    "score",
    "wire",
    "write_predictions",
]
