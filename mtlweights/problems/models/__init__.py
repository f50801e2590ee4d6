"""Encoders, heads, the model that joins them, and the inputs they take."""

from .cascade import CascadedModel
from .encoders import MLP, BiLSTM, Encoder, Pair, States
from .frozen import FrozenStates
from .heads import ClassificationHead, RegressionHead, TokenHead, make_head
from .inputs import FrozenInputs, PairInputs, SubwordInputs, TableInputs, WordInputs
from .multitask import MultiTaskModel, Output
from .sequences import EncoderDecoder
from .sharing import Joint, Shared, Sharing
from .transformer import Transformer, load_tokenizer, pretrained

__all__ = [
    "MLP",
    "BiLSTM",
    "CascadedModel",
    "ClassificationHead",
    "Encoder",
    "EncoderDecoder",
    "FrozenInputs",
    "FrozenStates",
    "Joint",
    "MultiTaskModel",
    "Output",
    "Pair",
    "PairInputs",
    "RegressionHead",
    "Shared",
    "Sharing",
    "States",
    "SubwordInputs",
    "TableInputs",
    "TokenHead",
    "Transformer",
    "WordInputs",
    "load_tokenizer",
    "make_head",
    "pretrained",
]
