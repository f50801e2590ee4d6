"""A trained model into its folder, out of it, and to the hub."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..problems import Task
from ..problems.models import CascadedModel, MultiTaskModel
from . import folder as folders
from .architecture import TRANSFORMER, describe_inputs, make_encoder, make_inputs, transformer_of
from .card import model_card
from .runtimes import Onnx, Runtime, Torch

if TYPE_CHECKING:
    from .trained import TrainedModel


def save(model: TrainedModel, path: Path) -> Path:
    """Write the folder of `TrainedModel.save_pretrained`."""
    said, vocabulary, tokenizer = describe_inputs(model.inputs)
    others: list[str] = []
    if tokenizer is not None:
        path.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(path / TRANSFORMER)
        if isinstance(model.runtime, Torch):
            transformer_of(model.module.encoder).config.save_pretrained(path / TRANSFORMER)
        elif not (path / TRANSFORMER / "config.json").exists():
            (path / TRANSFORMER / "config.json").write_text("{}", encoding="utf-8")
        others = [f"{TRANSFORMER}/{file.name}" for file in (path / TRANSFORMER).iterdir()]
    files = {folders.CARD: model_card(model).encode(), **_weights(model)}
    if vocabulary is not None:
        files[folders.VOCABULARY] = json.dumps(vocabulary, ensure_ascii=False).encode()
    config = {
        "mtlweights": __version__,
        "runtime": "torch" if isinstance(model.runtime, Torch) else "onnx",
        "problem": model.problem,
        "kind": model.kind,
        "tasks": [asdict(task) for task in model.tasks],
        "encoder": model.encoder,
        "inputs": said,
        "about": model.about,
    }
    if isinstance(model.runtime, Torch) and isinstance(model.module, CascadedModel):
        config["cascade"] = {"order": [*model.module.order], "detach": model.module.detach}
    return folders.write(path, config, files, others)


def _weights(model: TrainedModel) -> dict[str, bytes]:
    if isinstance(model.runtime, Onnx):
        return {folders.GRAPH: model.runtime.path.read_bytes()}
    state = {key: value.detach().cpu().contiguous() for key, value in model.module.state_dict().items()}
    return {folders.WEIGHTS: _safetensors().save(state)}


def _safetensors() -> Any:
    try:
        return import_module("safetensors.torch")
    except ImportError as error:
        raise ImportError("models need the package safetensors: pip install 'mtlweights[serve]'") from error


def push(model: TrainedModel, repository: str, private: bool, token: str | None) -> str:
    """Upload the folder; the repository's address."""
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ImportError("push_to_hub needs huggingface_hub: pip install 'mtlweights[serve]'") from error
    api = HfApi(token=token)
    address = api.create_repo(repository, private=private, exist_ok=True)
    with TemporaryDirectory() as folder:
        path = save(model, Path(folder))
        api.upload_folder(repo_id=address.repo_id, folder_path=path, commit_message="mtlweights model")
    return str(address)


def load(path: Path, config: dict[str, Any], threads: int) -> dict[str, Any]:
    """The fields of the `TrainedModel` in a folder, by its configuration."""
    tasks = tuple(map(_task, config["tasks"]))
    vocabulary = folders.read_json(path / folders.VOCABULARY) if folders.VOCABULARY in config["files"] else {}
    inputs = make_inputs(config["inputs"], vocabulary, path)
    runtime: Runtime
    if config["runtime"] == "onnx":
        runtime = Onnx(path / folders.GRAPH, threads)
    else:
        encoder = make_encoder(config["encoder"], path, tasks)
        chain = config.get("cascade")
        module = CascadedModel(encoder, tasks, **chain) if chain else MultiTaskModel(encoder, tasks)
        module.load_state_dict(_safetensors().load_file(path / folders.WEIGHTS))
        runtime = Torch(module.eval())
    kept = {key: config[key] for key in ("kind", "encoder", "problem", "about")}
    return {"tasks": tasks, "inputs": inputs, "runtime": runtime, **kept}


def _task(said: dict[str, Any]) -> Task:
    fields: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
    return Task(**fields)
