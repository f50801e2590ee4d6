"""Hidden states of a frozen transformer, computed once and kept on disk.

On a CPU that is what makes pretrained features affordable: one pass over the data, then every run
reads them back. Letters: B sentences, W words of the longest, L layers (embeddings included), F width.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from ...files.atomic import replacing, write
from .inputs import SubwordInputs, word_mask
from .transformer import load_model, load_tokenizer, model_folder

_FORMAT = 1  # of the cached files; part of their key
_LONGEST = 512  # sub-words of a sentence
_BATCH = 64  # sentences of about the same length
_MODEL_FILES = {".json", ".txt", ".model", ".safetensors", ".bin"}

Sentence = tuple[str, ...]


class FrozenStates:
    """All layers of a frozen transformer for a set of sentences, one vector per word.

    A word's vector is that of its first sub-word; it is zero for a word that has none, as a word
    behind the model's longest input. They are stored as float16 in ``cache``, named by a hash of
    the model's files and the sentences: computed if that file is not there or damaged, then mapped
    into memory. Safe with several processes: one computes, the others wait for it.

    Args:
        model: folder, name, or ``"minilm"``.
        sentences: every sentence that will be looked up, of all splits.
        cache: folder; made if need be.

    Raises:
        FileNotFoundError: no such model. OSError: ``cache`` cannot be written.
    """

    folder: Path  #: of the frozen model
    n_layers: int  #: L
    dim: int  #: F

    def __init__(self, model: str, sentences: Iterable[Sequence[str]], cache: str | Path) -> None:
        # By length, so that a batch has little padding; the order on disk is the same.
        unique = sorted({tuple(s) for s in sentences}, key=lambda s: (len(s), s))
        folder = self.folder = model_folder(model)
        self.path = Path(cache).expanduser() / f"states-{_key(folder, unique)}.npy"
        self._offsets: dict[Sentence, int] = {}
        offset = 0
        for sentence in unique:
            self._offsets[sentence] = offset
            offset += len(sentence)
        if offset == 0:
            raise ValueError("FrozenStates expects sentences with words, found none.")
        with _locked(self.path):
            if not _intact(self.path):
                _build(self.path, model, folder, unique)
        self._map()

    def _map(self) -> None:
        self._states = np.load(self.path, mmap_mode="r")
        _, self.n_layers, self.dim = self._states.shape

    def __getstate__(self) -> dict[str, Any]:
        """Without the states themselves: another process maps the same file."""
        return {key: value for key, value in vars(self).items() if key != "_states"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the file again."""
        vars(self).update(state)
        self._map()

    def lookup(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """States [B, W, L, F] float16, zero for padding. ValueError for a sentence not given before."""
        width = word_mask(sentences).shape[1]
        found = np.zeros((len(sentences), width, self.n_layers, self.dim), dtype=np.float16)
        for row, sentence in enumerate(sentences):
            offset = self._offsets.get(tuple(sentence))
            if offset is None:
                raise ValueError(
                    f"No states were computed for {' '.join(sentence)[:60]!r}: "
                    "give FrozenStates the sentences of every split."
                )
            found[row, : len(sentence)] = self._states[offset : offset + len(sentence)]
        return torch.from_numpy(found)


def _key(folder: Path, sentences: list[Sentence]) -> str:
    digest = hashlib.sha256(f"format {_FORMAT}".encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in _MODEL_FILES:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    digest.update(json.dumps(sentences).encode())
    return digest.hexdigest()[:32]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock dies with its process."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise OSError(
            f"Cannot write to the cache folder {path.parent} ({error}): set MTLWEIGHTS_CACHE to another one."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _intact(path: Path) -> bool:
    """Whether the states at ``path`` are complete; warns where they are there but damaged."""
    about = path.with_suffix(".json")
    if not about.exists():  # written last
        return False
    try:
        expected = json.loads(about.read_text("utf-8"))["crc32"]
        states = np.load(path, mmap_mode="r")
        checksum = 0
        for start in range(0, len(states), 4096):
            checksum = zlib.crc32(states[start : start + 4096].tobytes(), checksum)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"Cached states {path} cannot be read ({error}): computing them again.", stacklevel=3)
        return False
    if checksum != expected:
        warnings.warn(f"Cached states {path} are damaged (checksum): computing them again.", stacklevel=3)
    return bool(checksum == expected)


def _build(path: Path, model: str, folder: Path, sentences: list[Sentence]) -> None:
    """Compute and write the states, then their description: what is described is complete."""
    n_words, checksum = sum(map(len, sentences)), 0
    with replacing(path) as file:
        for states in _hidden_states(model, folder, sentences):
            if file.tell() == 0:
                header = {"descr": "<f2", "fortran_order": False, "shape": (n_words, *states.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            block = states.numpy().astype("<f2").tobytes()
            checksum = zlib.crc32(block, checksum)
            file.write(block)
    about = {"model": model, "sentences": len(sentences), "words": n_words, "crc32": checksum}
    write(path.with_suffix(".json"), json.dumps(about))


@torch.inference_mode()
def _hidden_states(model: str, folder: Path, sentences: list[Sentence]) -> Iterator[Tensor]:
    """States [words of the batch, L, F], batch by batch."""
    from tqdm import tqdm

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    transformer = load_model(str(folder)).train(False).to(device)
    longest = getattr(transformer.config, "max_position_embeddings", _LONGEST)
    inputs = SubwordInputs(load_tokenizer(str(folder)), min(longest, _LONGEST))
    starts = range(0, len(sentences), _BATCH)
    for start in tqdm(starts, desc=f"States of {model}, once", leave=False, disable=None):
        words = [list(sentence) for sentence in sentences[start : start + _BATCH]]
        batch = {key: value.to(device) for key, value in inputs(words).items()}
        mask = word_mask(words).to(device)
        first, seen = batch.pop("first"), batch.pop("mask")
        layers = transformer(**batch, output_hidden_states=True).hidden_states
        rows = torch.arange(len(first), device=device).unsqueeze(1)
        states = torch.stack([layer[rows, first] for layer in layers], 2) * seen[..., None, None]
        yield states[mask].cpu()
