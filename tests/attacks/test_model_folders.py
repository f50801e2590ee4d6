"""Model folders that were damaged or made by a stranger: one line, or a model that works; no code runs."""

import copy
import json
import pickle
import warnings

import pytest
import torch
from test_files import mutate

from mtlweights.problems.models import SubwordInputs, Transformer
from mtlweights.problems.models.transformer import load_model, load_tokenizer

SENTENCES = [["the", "dog", "barks"], ["a", "cat"], []]
CODE = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\nclass C: pass\n"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """The files of a small transformer and its tokenizer, by name."""
    from transformers import BertConfig, BertTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "cat", "bark", "##s", "a"]
    (folder / "vocab.txt").write_text("\n".join(words))
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    load_model(BertConfig(vocab_size=len(words), **small)).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Runs:
    """Unpickled, it leaves a file."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (exec, (f"open({str(self.place)!r}, 'w').close()",))


def damage(files, draw, ran):
    """The files with one of them cut, flipped, emptied, removed, of other content, or with code to run."""
    files = dict(files)
    name = draw.choice(sorted(files))
    content = bytearray(files[name])
    kind = draw.choice(["json", "json", "json", "cut", "flip", "remove", "swap", "code", "pickle"])
    if kind == "json" and name.endswith(".json"):
        files[name] = json.dumps(mutate(json.loads(content), draw)).encode()
    elif kind == "cut":
        files[name] = bytes(content[: draw.randrange(len(content))])
    elif kind == "remove":
        del files[name]
    elif kind == "swap":
        files[name] = files[draw.choice(sorted(files))]
    elif kind == "code":
        auto = {key: "theirs.C" for key in ("AutoConfig", "AutoModel", "AutoTokenizer")}
        config = {**json.loads(files["config.json"]), "auto_map": auto}
        if draw.random() < 0.5:
            config["model_type"] = "theirs"
        files |= {"config.json": json.dumps(config).encode(), "theirs.py": CODE.encode()}
    elif kind == "pickle":
        del files["model.safetensors"]
        files["pytorch_model.bin"] = pickle.dumps(Runs(ran))
    else:
        content[draw.randrange(min(len(content), 400))] ^= 1 << draw.randrange(8)
        files[name] = bytes(content)
    return kind, name, files


def use(folder):
    """A batch through the tokenizer and the model of a folder."""
    inputs = SubwordInputs(load_tokenizer(str(folder)))
    model = Transformer(str(folder)).eval()
    with torch.no_grad():
        assert model(inputs(SENTENCES)).pooled.shape[0] == len(SENTENCES)


def test_model_folders_of_strangers(attack, refusal, model_folder, tmp_path):
    """Damaged model folders: refused in one line, or used; no code in them runs."""
    for index, draw in enumerate(attack.draws(6)):
        folder, ran = tmp_path / f"m{index}", tmp_path / "ran"
        folder.mkdir()
        kind, name, files = damage(copy.copy(model_folder), draw, ran)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        with attack.trial(f"{index}: {kind} {name}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refusal(use, folder)
            assert not ran.exists() and not (folder / "ran").exists()
