"""``hyperparameter_search`` over strategies and what each declares.

python examples/search.py
"""

import sys
import tempfile
from pathlib import Path

import optuna
from transformers import TrainingArguments

import mtlweights
from mtlweights import Balancer
from mtlweights.integrations.huggingface import MultiTaskTrainer

sys.path.insert(0, str(Path(__file__).parent))
from trainer import TASKS, Model, examples


def space(trial):
    """What goes into the TrainingArguments; the balancer asks the trial itself."""
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True)}


def balancer(model, trial):
    """Made anew for the model of every trial; ``trial`` is None outside a search."""
    if trial is None:
        return Balancer("equal", TASKS, model)
    strategy = trial.suggest_categorical("strategy", ["cagrad", "uw"])
    return Balancer(strategy, TASKS, model, **mtlweights.suggest(trial, strategy, prefix=f"{strategy}."))


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
