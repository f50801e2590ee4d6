"""Shards of one bench, each in a folder of its own, and the folder that joins them."""

import json
from dataclasses import replace

import pytest
from test_budget import in_process, knows  # noqa: F401 (the fixture is used by itself)

from mtlweights.bench import read_results, run_suite
from mtlweights.bench.foresee import foresee
from mtlweights.bench.merge import in_shard, merge, read_shard
from mtlweights.bench.predictions import PREDICTIONS
from mtlweights.bench.report import verdicts
from mtlweights.bench.selection import labelled, read_choices
from mtlweights.bench.suite import Suite
from mtlweights.cli.main import main

SUITE = replace(Suite("s", {"breast_cancer": {}}, ("uw",), (0,), {}).under("tuned8"), seeds=(0, 1, 2))


def judged(folder):
    found = verdicts(labelled(read_results(folder), read_choices(folder)))
    return sorted(found, key=lambda v: (v["arm"], v["against"], v["what"]))


def test_shards_share_the_work_and_merge_into_the_whole(tmp_path, capsys):
    run_suite(SUITE, tmp_path / "whole", runner=knows, progress=False)
    parts = [tmp_path / f"part{i}" for i in (1, 2, 3)]
    for number, part in enumerate(parts, 1):
        run_suite(SUITE, part, runner=knows, progress=False, shard=(number, 3))
    ran = [{result["id"] for result in read_results(part)} for part in parts]
    assert all(ran) and sum(map(len, ran)) < 1.5 * len(
        set.union(*ran)
    )  # equal's trials are single's defaults
    (parts[0] / PREDICTIONS).mkdir()
    (parts[0] / PREDICTIONS / f"{min(ran[0])}.npz").write_bytes(b"x")
    assert main(["merge", str(tmp_path / "all"), *map(str, parts)]) == 0
    assert "results of 3 folders" in capsys.readouterr().out
    assert judged(tmp_path / "all") == judged(tmp_path / "whole")
    assert (tmp_path / "all" / PREDICTIONS / f"{min(ran[0])}.npz").read_bytes() == b"x"
    merge([parts[0]], tmp_path / "all")  # again, and nothing changes
    assert judged(tmp_path / "all") == judged(tmp_path / "whole")


def test_every_key_is_of_one_shard():
    keys = [f"key {k}" for k in range(300)]
    parts = [[key for key in keys if in_shard(key, (i, 4))] for i in (1, 2, 3, 4)]
    assert sorted(key for part in parts for key in part) == sorted(keys) and min(map(len, parts)) > 40
    assert all(in_shard(key, (1, 1)) for key in keys)
    assert read_shard("2/8") == (2, 8)
    for wrong in ("0/3", "4/3", "3", "a/b", "1/0", "-1/2"):
        with pytest.raises(ValueError, match="--shard takes i/n"):
            read_shard(wrong)


def test_what_does_not_belong_together_is_not_merged(tmp_path):
    for name in ("a", "b"):
        run_suite(SUITE, tmp_path / name, runner=knows, progress=False)
    some = sorted((tmp_path / "b" / "runs").glob("*.json"))[0]
    content = json.loads(some.read_text()) | {"steps": 11, "schema": 1}
    content.pop("checksum")
    some.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"differs between .*a and .*b in steps: of other data, code"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "b" / "protocol.json").write_text('{"worth": {}, "alpha": 0.01, "design": "fixed"}')
    some.unlink()
    with pytest.raises(ValueError, match="b was settled under another protocol"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        merge([tmp_path / "c"], tmp_path / "out")


def test_a_failed_run_gives_way_to_one_that_ended_well(tmp_path):
    for name in ("a", "b"):
        run_suite(SUITE, tmp_path / name, runner=knows, progress=False)
    some = sorted((tmp_path / "a" / "runs").glob("*.json"))[0]
    error = {"type": "OSError", "message": "disk", "traceback": ""}
    content = json.loads(some.read_text()) | {"status": "failed", "error": error, "schema": 1}
    content.pop("checksum")
    some.write_text(json.dumps(content))
    found = {r["id"]: r["status"] for r in merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")}
    assert found[some.stem] == "ok" and len(found) == len(list((tmp_path / "b" / "runs").glob("*.json")))


def test_a_dry_run_trains_nothing_and_counts_what_is_left(tmp_path, capsys):
    lines = foresee(SUITE, tmp_path, {}, 2)
    assert lines == [
        "breast_cancer: 77 runs, 77 to do (21 of them once their trials are known)",
        "no run has been measured yet",
    ]
    assert not list(tmp_path.iterdir())
    run_suite(SUITE, tmp_path, runner=knows, progress=False)
    for path in sorted((tmp_path / "runs").glob("*-single-*.json"))[:5]:
        path.unlink()
    lines = foresee(SUITE, tmp_path, {}, 2)
    assert (
        "77 runs, " in lines[0]
        and " at 0.1 s a run" in lines[0]
        and lines[1] == "together 1 min, 2 at a time"
    )
    assert main(["bench", "-p", "breast_cancer", "-s", "uw", "--out", str(tmp_path / "no"), "--dry-run"]) == 0
    assert "breast_cancer: 9 runs, 9 to do" in capsys.readouterr().out and not (tmp_path / "no").exists()
