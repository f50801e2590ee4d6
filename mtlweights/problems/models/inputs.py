"""From lists of examples to an encoder's tensors. All are picklable and fitted on training data.

Letters: B examples, W words of the longest example, C characters of the longest word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .encoders import UNKNOWN
from .features import Feature

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

    from .frozen import FrozenStates

MAX_CHARS = 24  #: characters of a word that are read; a longer word is cut

_DIGITS = str.maketrans("123456789", "000000000")


def _normalise(word: str) -> str:
    return word.lower().translate(_DIGITS)


def _pad(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max([len(row) for row in rows] + [1])
    padded = np.zeros((len(rows), width), dtype=np.int64)
    for padded_row, row in zip(padded, rows, strict=True):
        padded_row[: len(row)] = row
    return torch.from_numpy(padded)


class WordInputs:
    """Word and character indices. 0 is padding, 1 is unknown.

    Words are looked up in lower case with every digit as 0; characters as they are, so that case
    and digits are seen there. A word has at most `MAX_CHARS` of them.
    """

    def __init__(self, words: dict[str, int], chars: dict[str, int]) -> None:
        self.words, self.chars = words, chars

    @classmethod
    def fit(cls, sentences: Iterable[Sequence[str]], min_count: int = 1) -> WordInputs:
        """Vocabularies of the words seen at least ``min_count`` times, and of all characters."""
        words: Counter[str] = Counter()
        chars: set[str] = set()
        for sentence in sentences:
            words.update(map(_normalise, sentence))
            chars.update(*sentence)
        kept = sorted(word for word, count in words.items() if count >= min_count)
        return cls(
            {word: index for index, word in enumerate(kept, UNKNOWN + 1)},
            {char: index for index, char in enumerate(sorted(chars), UNKNOWN + 1)},
        )

    @property
    def n_words(self) -> int:
        """Number of rows of a word embedding."""
        return len(self.words) + UNKNOWN + 1

    @property
    def n_chars(self) -> int:
        """Number of rows of a character embedding."""
        return len(self.chars) + UNKNOWN + 1

    def __call__(self, sentences: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """``words`` [B, W] and ``chars`` [B, W, C] int64, ``mask`` [B, W] bool; W and C at least 1."""
        words = _pad([[self.words.get(_normalise(word), UNKNOWN) for word in s] for s in sentences])
        spelt = [
            [[self.chars.get(char, UNKNOWN) for char in word[:MAX_CHARS]] for word in s] for s in sentences
        ]
        longest = max((len(word) for s in spelt for word in s), default=1)
        chars = np.zeros((*words.shape, max(longest, 1)), dtype=np.int64)
        for row, sentence in enumerate(spelt):
            for column, word in enumerate(sentence):
                chars[row, column, : len(word)] = word
        return {"words": words, "chars": torch.from_numpy(chars), "mask": word_mask(sentences)}


def word_mask(sentences: Sequence[Sequence[str]]) -> Tensor:
    """Bool [B, W], True for the words of each sentence; W at least 1."""
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    width = max(int(lengths.max()) if len(lengths) else 1, 1)
    return torch.arange(width) < lengths.unsqueeze(1)


def first_subwords(encoding: BatchEncoding, sizes: Sequence[Sequence[int]]) -> list[list[int]]:
    """Index of each word's first sub-word, -1 for a word that has none.

    ``sizes`` [B][1 or 2]: words of each sequence of each example. Words of a pair are numbered on:
    the second sequence's follow the first's. A word has no sub-word if it was cut off, or if the
    tokenizer drops all its characters (a lone control character).
    """
    result = []
    for row, size in enumerate(sizes):
        first = [-1] * sum(size)
        pieces = zip(encoding.word_ids(row), encoding.sequence_ids(row), strict=True)
        for position, (word, sequence) in enumerate(pieces):
            if word is not None:
                word += size[0] if sequence == 1 else 0
                first[word] = position if first[word] < 0 else first[word]
        result.append(first)
    return result


class SubwordInputs:
    """Sub-word indices for a `Transformer`, aligned with the words.

    Give sentences (lists of words), or pairs of them to encode both at once, one after the other.
    Longer ones are cut at ``max_length`` sub-words, special ones included. The tokenizer must be a
    fast one (it alone tells which word a sub-word is from): ValueError otherwise.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int = 128) -> None:
        if not tokenizer.is_fast:
            raise ValueError(
                f"SubwordInputs expects a fast tokenizer, found {type(tokenizer).__name__}: "
                "load it with mtlweights.problems.models.load_tokenizer."
            )
        self.tokenizer = tokenizer
        limit = tokenizer.model_max_length
        self.max_length = min(max_length, limit) if limit else max_length

    def __call__(self, examples: Sequence[Any]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` [B, S], ``first`` [B, W] int64, ``mask`` [B, W] bool.

        ``first`` is 0 and ``mask`` False where a word has no sub-word. With a tokenizer that marks
        the second sequence of a pair, also ``token_type_ids`` [B, S].
        """
        pairs = bool(examples) and isinstance(examples[0], tuple)
        sides = [list(side) for side in zip(*examples, strict=True)] if pairs else [list(examples)]
        encoding = self.tokenizer(
            *[[list(sentence) for sentence in side] for side in sides],
            is_split_into_words=True,
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        )
        sizes = [[len(sentence) for sentence in example] for example in zip(*sides, strict=True)]
        words = first_subwords(encoding, sizes)
        first = _pad([[position + 1 for position in row] for row in words]) - 1
        kept = {k: encoding[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in encoding}
        return {**kept, "first": first.clamp(min=0), "mask": first >= 0}


class FrozenInputs:
    """`WordInputs`' tensors and the cached features of a frozen transformer."""

    def __init__(self, words: WordInputs, states: FrozenStates) -> None:
        self.words, self.states = words, states

    def __call__(self, sentences: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """As `WordInputs`, with ``features`` [B, W, L, F] float16."""
        return {**self.words(sentences), "features": self.states.lookup(sentences)}


class PairInputs:
    """Two sets of inputs, ``a`` and ``b``, from pairs; for the `Pair` encoder."""

    def __init__(self, inputs: Callable[[list[Any]], dict[str, Tensor]]) -> None:
        self.inputs = inputs

    def __call__(self, pairs: Sequence[tuple[Any, Any]]) -> dict[str, dict[str, Tensor]]:
        """``{"a": inputs of the first ones, "b": inputs of the second ones}``."""
        return {"a": self.inputs([a for a, _ in pairs]), "b": self.inputs([b for _, b in pairs])}


class TableInputs:
    """Rows of numbers, each column standardised to the training data's mean 0 and deviation 1.

    ``features``: the table's columns that these are made of, in their order; none known: ().
    """

    def __init__(self, mean: np.ndarray, std: np.ndarray, features: Sequence[Feature] = ()) -> None:
        self.mean, self.std, self.features = mean, std, tuple(features)

    @classmethod
    def fit(cls, rows: Sequence[Sequence[float]], features: Sequence[Feature] = ()) -> TableInputs:
        """Means and deviations of the columns; a constant column becomes 0."""
        table = np.asarray(rows, dtype=np.float64)
        std = table.std(0)
        return cls(table.mean(0), np.where(std > 0, std, 1.0), features)

    @property
    def n_inputs(self) -> int:
        """Number of columns."""
        return len(self.mean)

    def __call__(self, rows: Sequence[Sequence[float]]) -> dict[str, Tensor]:
        """``x`` [B, columns] float32."""
        table = (np.asarray(rows, dtype=np.float64) - self.mean) / self.std
        return {"x": torch.from_numpy(table).float()}
