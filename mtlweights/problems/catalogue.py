"""The built-in problems in a line each, without loading any."""

from __future__ import annotations

from .data.mulan import TABLES
from .registry import PROBLEMS

#: tasks with the metric an epoch is selected on, the model, and the data
_ABOUT: dict[str, tuple[str, str, str]] = {
    "tagging": ("ner (span_f1), pos (accuracy)", "BiLSTM", "embedded: sentences of a small grammar"),
    "breast_cancer": ("diagnosis (accuracy), radius (rmse)", "MLP", "comes with scikit-learn"),
    "toy": ("l1, l2 (value)", "a point of the plane", "none"),
    "tweebank": ("ner (span_f1), pos (accuracy)", "BiLSTM", "3,550 English tweets"),
    "sick": ("entailment (accuracy), relatedness (pearson)", "BiLSTM", "9,927 sentence pairs"),
    "abalone": ("sex (accuracy), rings (rmse)", "MLP", "4,177 rows"),
    "burgers": ("equation, boundary, initial (relative_l2)", "tanh network", "none: an equation"),
    "helmholtz": ("equation, sides_x, sides_y (relative_l2)", "tanh network", "none: an equation"),
    "snips": ("slots (span_f1), intent (accuracy)", "BiLSTM", "14,484 utterances to a voice assistant"),
    "atis": ("slots (span_f1), intent (accuracy)", "BiLSTM", "5,871 enquiries about flights"),
    "tox21": ("12 assays (auroc)", "BiLSTM", "7,831 molecules as SMILES, 17 % of the labels missing"),
    "census": ("income, never_married, college (auroc)", "MLP", "yours: UCI's Census-Income (KDD)"),
}


def catalogue() -> list[dict[str, str]]:
    """Every built-in problem: {"name", "tasks", "model", "data"}."""
    rows = []
    for name in PROBLEMS:
        kind, _, table = name.partition(":")
        if kind == "mulan":
            about = (f"{TABLES[table]} regressions (rrmse)", "MLP", "one of Mulan's tables, in raw units")
        else:
            about = _ABOUT[name]
        rows.append(dict(zip(("name", "tasks", "model", "data"), (name, *about), strict=True)))
    return rows
