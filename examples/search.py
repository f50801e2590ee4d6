"""``hyperparameter_search`` over strategies and the knobs of each.

python examples/search.py
"""

import sys
import tempfile
from pathlib import Path

import optuna
from transformers import TrainingArguments

from mtlweights import Balancer
from mtlweights.integrations.huggingface import MultiTaskTrainer

sys.path.insert(0, str(Path(__file__).parent))
from trainer import TASKS, Model, examples


def space(trial):
    """What is asked of the trial; what is returned goes into the TrainingArguments."""
    if trial.suggest_categorical("strategy", ["cagrad", "uw"]) == "cagrad":
        trial.suggest_float("c", 0.1, 0.9)
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True)}


def balancer(model, trial):
    """Made anew for the model of every trial; ``trial`` is None outside a search."""
    params = {"strategy": "equal"} if trial is None else dict(trial.params)
    knobs = {name: value for name, value in params.items() if name not in ("strategy", "learning_rate")}
    return Balancer(params["strategy"], TASKS, model, **knobs)


arguments = TrainingArguments(
    tempfile.mkdtemp(),
    per_device_train_batch_size=16,
    num_train_epochs=2,
    eval_strategy="epoch",
    save_strategy="no",
    use_cpu=True,
    report_to=[],
    disable_tqdm=True,
)
trainer = MultiTaskTrainer(
    model_init=lambda: Model(),
    args=arguments,
    train_dataset=examples(32),
    eval_dataset=examples(16),
    balancer=balancer,
)
best = trainer.hyperparameter_search(
    space, n_trials=3, backend="optuna", sampler=optuna.samplers.RandomSampler(seed=0)
)
print(best.objective, best.hyperparameters)
