"""The model card: what a model is for, what it was trained on, how well it does, how to use it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..files.escapes import markdown, one_line

if TYPE_CHECKING:
    from ..problems import Task
    from .trained import TrainedModel

_USE = """```python
from mtlweights.serve import TrainedModel

model = TrainedModel.from_pretrained("{folder}")
print(model.predict([{example}]))
```"""
_EXAMPLES = {
    "text": '"A text, or a list of words"',
    "pair": '("One text.", "Another one.")',
}


def model_card(model: TrainedModel) -> str:
    """Markdown, with the front matter that the Hugging Face hub reads."""
    about = model.about
    lines = ["---", "library_name: mtlweights", "tags:", "- multi-task-learning", "---", ""]
    lines += [f"# {markdown(model.problem or 'A multi-task model')}", ""]
    names = ", ".join(markdown(task.name) for task in model.tasks)
    lines += [f"One model for {len(model.tasks)} task{'s' * (len(model.tasks) > 1)}: {names}.", ""]
    lines += ["## Tasks", "", "| task | answer | labels or unit |", "|---|---|---|", *map(_task, model.tasks)]
    lines += ["", "## Training", "", *_training(model), ""]
    if about.get("scores"):
        lines += ["## Scores", "", *_scores(about["scores"]), ""]
    if model.features:
        lines += ["## Columns", "", *_columns(model), ""]
    lines += ["## Use", "", _USE.format(folder="FOLDER", example=_example(model)), ""]
    return "\n".join(lines)


def _example(model: TrainedModel) -> str:
    if model.kind != "table":
        return _EXAMPLES[model.kind]
    row = {f.name: next(filter(None, f.categories), "") or f.missing for f in model.features}
    return repr(row or [*model.inputs.mean.tolist()])


def _task(task: Task) -> str:
    if task.kind in ("tokens", "classification"):
        answer = "a label per word" if task.kind == "tokens" else "a label"
        shown = ", ".join(task.labels[:20]) + (f" and {len(task.labels) - 20} more" * (len(task.labels) > 20))
    else:
        answer = "a number"
        shown = f"mean {task.mean:.4g}, standard deviation {task.std:.4g} in training"
    return f"| {markdown(task.name)} | {answer} | {markdown(shown)} |"


def _training(model: TrainedModel) -> Iterator[str]:
    about: dict[str, Any] = model.about
    yield f"- encoder: {markdown(_encoder(model.encoder))}"
    if about.get("strategy"):
        yield f"- loss weighting: {markdown(about['strategy'])}"
    if about.get("examples"):
        said = ", ".join(f"{n:,} {markdown(split)}" for split, n in about["examples"].items())
        yield f"- examples: {said}"
    for note in about.get("notes", ()):
        yield f"- {markdown(note)}"
    if about.get("settings"):
        yield "- settings: " + markdown(", ".join(f"{k}={v}" for k, v in about["settings"].items()))
    if about.get("data"):
        yield f"- SHA-256 of the data, shortened: {markdown(about['data'])}"
    for change in about.get("changes", ()):
        yield f"- afterwards: {markdown(change)}"


def _encoder(said: dict[str, Any]) -> str:
    kind = said["type"]
    inner = said.get("encoder")
    return f"{kind} of {_encoder(inner)}" if inner else one_line(str(kind))


def _scores(scores: dict[str, Any]) -> Iterator[str]:
    yield "| task | metric | dev | test | test, mean over seeds |"
    yield "|---|---|---|---|---|"
    for task, metrics in scores.items():
        for metric, found in metrics.items():
            over = ""
            if found.get("seeds", 1) > 1:
                over = f"{found['mean']:.4f} ± {found['half']:.4f} (95 %, {found['seeds']} seeds)"
            cells = (markdown(task), metric, _number(found.get("dev")), _number(found.get("test")), over)
            yield f"| {' | '.join(cells)} |"
    yield ""
    yield "Of this model on data that it was not trained on; it was selected on dev, test was scored once."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _columns(model: TrainedModel) -> Iterator[str]:
    for feature in model.features:
        if feature.categories:
            shown = ", ".join("(missing)" if name is None else name for name in feature.categories[:20])
            yield f"- {markdown(feature.name)}: one of {markdown(shown)}"
        else:
            yield f"- {markdown(feature.name)}: a number; {feature.missing:.6g} where it is missing"
