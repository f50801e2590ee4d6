"""Is this tree ready to release? Build, install without extras in an empty environment, test from elsewhere.

    python .ci/release.py                                   newest versions, this Python
    python .ci/release.py --oldest                          and the lower bounds of setup.cfg
    python .ci/release.py --pythons python3.10 python3.13 --oldest --extras tune
    python .ci/release.py --oldest --with torch==2.13.0     one fixed, where its older wheels are not had

1. The sdist and, out of it, the wheel are built; what the wheel holds is what the package's tree holds.
2. For every Python, and newest and oldest versions: an empty environment, the wheel, pytest; the core tests
   run from a folder that has the tests alone. With ``--extras``, those are installed, their tests run too.
3. dist/release.md says what was run, with which versions, and what failed. Status 1 if anything did.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = ["strategies/gram/test_cagrad.py", "strategies/loss/test_famo.py", "strategies/test_registry.py"]
CORE += ["strategies/solvers", "strategies/test_hyperparameters.py", "balancer/test_balancer.py"]
CORE += ["balancer/test_advise.py", "gradients/test_inner_products.py", "testing/test_testing.py"]
OF_EXTRA = {
    "tune": ["bench/tune/test_space.py", "bench/tune/test_study.py"],
    "bench": ["bench/test_statistics.py", "problems/test_models.py", "integrations/test_huggingface.py"],
}
SHOWN = ("torch", "numpy", "scipy", "transformers", "optuna")


def build(into: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it, in ``into``.

    Raises:
        SystemExit: the wheel lacks a file of the package, or has one more.
    """
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "tree"
        shutil.copytree(
            ROOT, clean, ignore=shutil.ignore_patterns(".git", ".venv", "dist", "build", "*.egg-info")
        )
        code = f"from setuptools import build_meta as b; print(b.build_sdist({str(into)!r}))"
        name = run([sys.executable, "-c", code], cwd=clean).stdout.split()[-1]
        with tarfile.open(into / name) as archive:
            archive.extractall(folder, filter="data")
        code = f"from setuptools import build_meta as b; print(b.build_wheel({str(into)!r}))"
        unpacked = Path(folder) / name.removesuffix(".tar.gz")
        wheel = run([sys.executable, "-c", code], cwd=unpacked).stdout.split()[-1]
    held = {entry for entry in zipfile.ZipFile(into / wheel).namelist() if entry.startswith("mtlweights/")}
    listed = run(["git", "ls-files", "mtlweights"], cwd=ROOT).stdout.split()
    if held != set(listed):
        raise SystemExit(f"release: the wheel and the tree differ in {sorted(held ^ set(listed))}")
    return into / name, into / wheel


def oldest(extras: list[str]) -> list[str]:
    """``name==least`` of the base install and of the extras, from setup.cfg."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    options = config["options.extras_require"]
    lines = [config["options"]["install_requires"], *(options[extra] for extra in extras)]
    found = re.findall(r"^([\w-]+)\S*?>=([\d.]+)", "\n".join(lines), re.MULTILINE)
    return [f"{name}=={least}" for name, least in dict(found).items()]


def check(python: str, wheel: Path, pins: list[str], extras: list[str]) -> tuple[str, str]:
    """Versions, and "ok" or what failed, of one environment."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if python == sys.executable:
            venv.create(place / "venv", with_pip=True)
        else:
            run([python, "-m", "venv", str(place / "venv")])
        own = str(place / "venv" / "bin" / "python")
        wanted = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
        install = [own, "-m", "pip", "install", "-q", "--disable-pip-version-check", wanted, *pins, "pytest"]
        done = run([*install, "hypothesis"], check=False)
        if done.returncode:
            return " ".join(pins) or "newest", f"not installed: {done.stderr.strip().splitlines()[-1][:160]}"
        shutil.copytree(ROOT / "tests", place / "tests")
        tests = [
            f"tests/{test}" for test in [*CORE, *(t for extra in extras for t in OF_EXTRA.get(extra, []))]
        ]
        code = "import importlib.metadata as m, sys; print(sys.version.split()[0], *(f'{d.name} {d.version}' "
        code += f"for d in m.distributions() if d.name in {SHOWN}), sep=', ')"
        versions = run([own, "-c", code], cwd=place).stdout.strip()
        done = run([own, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], cwd=place, check=False)
        last = (done.stdout.strip().splitlines() or [done.stderr.strip()[-160:]])[-1]
        if done.returncode:
            print(done.stdout, file=sys.stderr)
            return versions, ", ".join(["failed: " + last, *re.findall(r"^FAILED (\S+)", done.stdout, re.M)])
        return versions, "ok: " + last


def run(command: list[str], cwd: Path = ROOT, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command outside this tree's environment."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, check=check, capture_output=True, text=True, env=environment)


def main() -> int:
    """Build, check every environment, write the table; 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pythons", nargs="+", default=[sys.executable])
    parser.add_argument("--oldest", action="store_true", help="the lower bounds too")
    parser.add_argument("--extras", nargs="+", default=[])
    parser.add_argument("--with", nargs="+", default=[], dest="pins", metavar="NAME==VERSION")
    args = parser.parse_args()
    out = ROOT / "dist"
    out.mkdir(exist_ok=True)
    sdist, wheel = build(out)
    print(f"built {sdist.name}, {wheel.name}", flush=True)
    fixed = {pin.partition("==")[0] for pin in args.pins}
    least = [pin for pin in oldest(args.extras) if pin.partition("==")[0] not in fixed]
    lines = ["| versions | outcome |", "|---|---|"]
    for python in args.pythons:
        for pins in [[], least] if args.oldest else [[]]:
            lines.append("| {} | {} |".format(*check(python, wheel, [*args.pins, *pins], args.extras)))
            print(lines[-1], flush=True)
    (out / "release.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(any("| ok: " not in line for line in lines[2:]))


if __name__ == "__main__":
    sys.exit(main())
