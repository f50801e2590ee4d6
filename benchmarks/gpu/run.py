"""Everything that a GPU is needed for, in one command: ``make gpu``.

Needs a torch with CUDA, numpy and scipy; ``fit`` also what the extra ``bench`` installs, the peers' times
TorchJD and LibMTL. ``--device cpu`` is a dry run of the same code on tiny models. Each part is a process of
its own with a time limit, so that one that dies or hangs costs no other; its records stay, and the page is
written anew after each. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / part) for part in ("benchmarks/gpu", "benchmarks/micro", "tests"))]

import page  # noqa: E402
import records  # noqa: E402
import torch  # noqa: E402

from mtlweights import strategies  # noqa: E402

LIMITS = {"checks": 130.0, "reads": 40.0, "speed": 220.0, "fit": 70.0}  #: seconds
GRACE = 20.0  #: for the check that runs when the time is up, and for the start


def part(name: str, args: argparse.Namespace) -> int:
    """Run one part here."""
    import checks
    import reads
    import speed
    import training

    warnings.simplefilter("ignore")
    torch.set_num_threads(1 if args.device == "cpu" else torch.get_num_threads())
    run = {"checks": checks, "reads": reads, "speed": speed, "fit": training}[name].run
    log = records.Log(args.out / f"{name}.jsonl", args.limit or LIMITS[name], args.device)
    run(args.strategies, log)
    return 0


def whole(args: argparse.Namespace) -> int:
    """Run the parts asked for, one process each."""
    args.out.mkdir(parents=True, exist_ok=True)
    if args.only:
        (args.out / "machine.txt").write_text(page.machine(args.device))
        print(page.machine(args.device), flush=True)
    for name in args.only:
        start, path = time.perf_counter(), args.out / f"{name}.jsonl"
        print(f"{name} ...", flush=True)
        path.unlink(missing_ok=True)
        command = [sys.executable, __file__, "--part", name, "--device", args.device, "--out", str(args.out)]
        command += ["--strategies", *args.strategies]
        command += ["--limit", str(args.limit)] if args.limit else []
        log = records.Log(path, 0.0, args.device)
        try:
            status = subprocess.run(command, timeout=(args.limit or LIMITS[name]) + GRACE).returncode
            if status:
                log.add("the part itself", name, False, error=f"it ended with status {status}")
        except subprocess.TimeoutExpired:
            log.add("the part itself", name, False, error="it hung, and was ended")
        page.write(args.page, args.out)
        failed = sum(r.ok is False for r in records.read(path))
        print(f"{name}: {failed} failed, {time.perf_counter() - start:.0f} s", flush=True)
    page.write(args.page, args.out)
    found = [r for name in LIMITS for r in records.read(args.out / f"{name}.jsonl")]
    failed = sum(r.ok is False for r in found)
    print(f"{args.page}: {failed} failed of {sum(r.ok is not None for r in found)}")
    return int(failed > 0)


def main() -> int:
    """Parse, check what is there, run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a dry run (default: cuda)")
    parser.add_argument(
        "--only",
        nargs="*",
        default=list(LIMITS),
        metavar="PART",
        help=f"of {', '.join(LIMITS)}; none: the page alone, of the records that are there",
    )
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="folder of the records")
    parser.add_argument("--page", type=Path, help="default: step-gpu.md in the folder of the records")
    parser.add_argument("--limit", type=float, help="seconds for each part, instead of its own")
    parser.add_argument("--strategies", nargs="+", default=strategies.names(), metavar="NAME")
    parser.add_argument("--part", choices=list(LIMITS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cpu" and not args.limit:
        args.limit = 1800.0  # a machine may be busy: a dry run is for what is wrong, not for time
    args.page = args.page or args.out / "step-gpu.md"
    if not set(args.only) <= set(LIMITS):
        parser.error(f"--only takes {', '.join(LIMITS)}; found {', '.join(args.only)}.")
    if args.only and args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch sees no GPU here: try the dry run, --device cpu.")
    return part(args.part, args) if args.part else whole(args)


if __name__ == "__main__":
    sys.exit(main())
