"""The page *Works with*, and what makes it."""

from pathlib import Path

import torch

from docs import works_with
from docs.works_with import COLUMNS, FAILED, NOT_RUN, REFUSED, TICK
from mtlweights import Balancer, strategies

PAGE = Path(__file__).parents[2] / "docs" / "works_with.md"


def committed():
    """Strategy -> cells, as the page has them."""
    section = PAGE.read_text(encoding="utf-8").partition("## Strategy by loop")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {line[0].strip(" `"): [x.strip() for x in line[1:]] for line in lines}


def test_the_page_has_every_strategy_and_no_gap():
    found = committed()
    assert list(found) == strategies.names(), "run the suite and docs/works_with.py anew"
    text = PAGE.read_text(encoding="utf-8")
    for name, cells in found.items():
        assert len(cells) == len(COLUMNS)
        for column, text_of_cell in zip(COLUMNS, cells, strict=True):
            allowed = {TICK, f"{TICK}ᵃ"} | ({REFUSED} if column.title == "FSDP2" else set())
            assert text_of_cell in allowed, (name, column.title)
    assert FAILED not in text and NOT_RUN not in text
    for what, error in works_with.refusals().items():
        assert error and f"| {what} | {error} |" in text, what


def test_loss_based_methods_are_not_refused_where_the_page_says_so():
    x = torch.ones(2, 2)
    for kind in (works_with.DeepSpeedEngine, works_with.FullyShardedDataParallel):
        model = kind(2, 2)
        out = model(x)
        Balancer("uw", ["a", "b"], model)({"a": out.sum(), "b": out.square().sum()}).backward()
        assert model.weight.grad.isfinite().all()


def case(file, name, inside=""):
    return f'<testcase classname="tests.{file}" name="{name}" time="0.1">{inside}</testcase>'


PLAIN = ("test_both_paths_leave_the_same_gradients_over_several_steps", "test_gradient_equals_the_definition")


def of_cases(path, *cases):
    path.write_text(f'<testsuites><testsuite name="pytest">{"".join(cases)}</testsuite></testsuites>')
    rows = works_with.rows(works_with.read(path))
    titles = [column.title for column in COLUMNS]
    return {name: dict(zip(titles, cells, strict=True)) for name, cells in rows.items()}


def test_a_cell_is_a_tick_only_if_all_its_tests_ran_and_passed(tmp_path):
    found = of_cases(
        tmp_path / "junit.xml",
        *(case("test_balancer", f"{test}[{id_}]") for test in PLAIN for id_ in ("uw", "mgda", "pcgrad")),
        case("test_balancer", f"{PLAIN[1]}[2-mgda-plain]", "<failure message='x'>x</failure>"),
        case("test_balancer", f"{PLAIN[0]}[equal]"),  # one of two
        *(case("test_balancer", f"{test}[fixed]", "<skipped/>") for test in PLAIN),
        *(case("test_balancer", f"{test}[uw_so]", "<error message='x'>x</error>") for test in PLAIN),
        case("test_contract", "test_contract[resume-uw]"),
        case("test_contract", "test_contract[finite-mgda]"),
        case("test_fsdp", "test_equals_one_process[graddrop]", "<failure message='x'>x</failure>"),
        case("integrations.test_compile", "test_compiled_equals_eager[uw]"),
    )
    kinds = {"uw": TICK, "pcgrad": TICK, "mgda": FAILED, "equal": NOT_RUN, "fixed": NOT_RUN, "uw_so": FAILED}
    assert {name: found[name]["plain"] for name in kinds} == kinds
    assert found["uw"]["resume"] == found["uw"]["compile"] == TICK
    assert found["mgda"]["resume"] == found["uw"]["bf16"] == NOT_RUN
    # never run and refused; failed although refused; never run and not refused
    assert found["adatask"]["FSDP2"] == REFUSED
    assert found["graddrop"]["FSDP2"] == FAILED and found["mgda"]["FSDP2"] == NOT_RUN


def test_strategies_of_several_batches_have_tests_of_their_own(tmp_path):
    both = next(column for column in COLUMNS if column.title == "window").several
    cases = [case("test_batches", f"test_{test.partition('::')[2]}") for test in both]
    found = of_cases(tmp_path / "a.xml", *cases, case("test_window", "test_equals_one_big_batch[call-uw]"))
    assert found["modo"]["window"] == f"{TICK}ᵃ" and found["uw"]["window"] == TICK
    found = of_cases(
        tmp_path / "b.xml", cases[0], case("test_window", "test_equals_one_big_batch[call-modo]")
    )
    assert found["modo"]["window"] == NOT_RUN
