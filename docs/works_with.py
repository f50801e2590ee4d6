"""Makes the page *Works with* of the documentation from the results of the tests.

``python -m pytest --junitxml=junit.xml``, then ``python docs/works_with.py junit.xml > docs/works_with.md``.
With several files, a test's result in a later one replaces that in an earlier one. A cell is a tick only if
its tests are there, for that strategy, and passed.
"""

import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from mtlweights import Balancer, strategies
from mtlweights.balancer.arguments import check_sharded
from mtlweights.gradients import fsdp

TICK, FAILED, NOT_RUN, REFUSED = "✓", "**failed**", "not run", "refused"
LIBRARIES = ("torch", "transformers", "accelerate", "lightning", "peft", "deepspeed")


class Column(NamedTuple):
    """A loop, what holds there, the tests behind it, and those in their place for several batches.

    A test is "file::test[parts of its id]", ``test_`` left out before both names, ``{}`` being the strategy.
    """

    title: str
    holds: str
    tests: tuple[str, ...]
    several: tuple[str, ...] = ()


COLUMNS = [
    Column(
        "plain",
        "`balancer(losses).backward()` and `balancer.backward` leave the gradients of the definition",
        (
            "balancer::both_paths_leave_the_same_gradients_over_several_steps[{}]",
            "balancer::gradient_equals_the_definition[{}]",
        ),
    ),
    Column(
        "window",
        "gradient accumulation: four micro-batches, tasks missing from some, equal one big batch",
        ("window::equals_one_big_batch[{}]",),
        (
            "batches::rows_of_two_batches_are_stacked",
            "batches::four_micro_batches_are_two_batches_of_two",
        ),
    ),
    Column(
        "overflow",
        "a step whose loss or gradient is not finite, skipped by a `GradScaler` or not, moves no state",
        (
            "optimizer_steps::a_loss_that_is_not_finite_poisons_grad_and_moves_nothing[{}]",
            "precision::an_overflow_is_a_skipped_step[{}]",
        ),
    ),
    Column(
        "fp16",
        "autocast with a `GradScaler` (the CPU's) and clipping: the same for every scale",
        (
            "precision::fp16_result_does_not_depend_on_the_scale[{}]",
            "precision::full_range_of_scales_in_full_precision[{}]",
        ),
    ),
    Column(
        "bf16",
        "autocast, and parameters in bf16: near full precision, and trains",
        ("precision::bf16_autocast[{}]", "precision::pure_bf16_parameters[{}]"),
    ),
    Column(
        "DDP",
        "two processes equal one, tasks missing on a rank, unequal batches; ranks bit-identical",
        ("ranks::equals_one_process_and_ranks_agree[{}]",),
    ),
    Column(
        "FSDP2",
        "two processes that hold shards equal one, a batch a step and in windows",
        ("fsdp::equals_one_process[{}]", "fsdp_loops::a_window_equals_one_process[{}]"),
        ("fsdp_loops::a_window_equals_one_process[{}]",),
    ),
    Column(
        "checkpointing",
        "activations recomputed (non-reentrant) change nothing",
        ("compile::recomputed_activations_give_the_same[{}]",),
    ),
    Column("compile", "`torch.compile` equals the eager model", ("compile::compiled_equals_eager[{}]",)),
    Column(
        "Trainer",
        "accumulation 4 x 4 equals 16, with the subclass and with the balancer in `forward`",
        ("huggingface::any_strategy_trains_and_four_by_four_equals_sixteen[{}]",),
        ("huggingface::several_batches_equal_a_plain_loop[{}]",),
    ),
    Column(
        "Accelerate",
        "accumulation 4 x 4 equals 16, with clipping",
        ("accelerate::accumulate_and_clip_equal_one_big_batch[{}]",),
        ("accelerate::several_batches_equal_a_plain_loop[{}]",),
    ),
    Column(
        "Lightning",
        "accumulation 4 x 4 equals 16, automatic optimisation",
        ("lightning::any_strategy_and_four_by_four_equals_sixteen[{}]",),
        ("lightning::several_batches_equal_a_plain_loop[{}]",),
    ),
    Column(
        "LoRA",
        "gradients of adapters and heads only; both trained and saved",
        ("peft::adapters_and_heads_alone_are_trained[{}]",),
    ),
    Column(
        "resume",
        "saved in mid-training, loaded, continued: bit for bit",
        ("contract::contract[{}-resume]",),
    ),
    Column(
        "fit, two processes",
        "`fit` leaves what it leaves in one process: under DDP, and under FSDP2 where that column has a tick",
        ("several_processes::two_processes_equal_one[{}]",),
    ),
]
#: what some strategies stand for
FEW = {
    "Trainer, two processes (torchrun)": "huggingface::two_processes_equal_one",
    "Trainer, resume from a checkpoint": "huggingface::resumes_bit_for_bit",
    "Trainer, several label sets": "huggingface::several_label_sets_survive_evaluate",
    "Trainer, `hyperparameter_search`": (
        "huggingface::hyperparameter_search_reaches_the_strategy_and_its_knobs"
    ),
    "Trainer with LoRA": "peft::trained_by_the_trainer_and_saved",
    "Trainer: checkpointing, compile, bf16": "trainer_options::each_gives_what_the_trainer_without_it_gives",
    "Trainer, losses after the step": "huggingface::famo_gets_the_losses_of_the_same_batch_after_the_step",
    "Trainer, held-out batches": "huggingface::auto_lambda_gets_a_held_out_batch_before_every_step",
    "Accelerate, two processes": "accelerate::two_processes_equal_one",
    "Accelerate, `save_state` and `load_state`": "accelerate::save_state_and_load_state",
    "Accelerate in bf16": "accelerate::bf16",
    "Lightning, two processes (DDP)": "lightning::two_processes_equal_one",
    "Lightning, `ckpt_path`": "lightning::ckpt_path_resumes_bit_for_bit",
    "Lightning in bf16": "lightning::bf16",
    "parameter groups, two processes (DDP, FSDP2)": "groups::two_processes_equal_one",
    "parameter groups, resumed, and in windows": "groups::it_goes_on_from_a_checkpoint_and_in_windows",
    "DDP's options, 20 steps": ("ranks_variants::twenty_steps_equal_one_process_and_ranks_are_bit_identical"),
    "DDP: one collective per step": "ranks_variants::one_collective_per_step",
    "process groups: pairs, alone, HSDP, shards over some": (
        "process_groups::a_model_is_balanced_over_the_processes_that_train_it"
    ),
    "FSDP2, micro-batches that are not reduced": "fsdp_loops::a_micro_batch_that_the_loop_does_not_reduce",
    "FSDP2 in bf16": "fsdp_loops::parameters_in_bf16",
    "FSDP2, saved with DCP": "fsdp_loops::saved_and_loaded_with_dcp_bit_for_bit",
    "FSDP1": "other_wrappers::loss_based_strategies_equal_one_process",
    "FSDP1, refused": ("other_wrappers::per_task_gradients_are_refused_whatever_the_balancer_was_given"),
    "DeepSpeed, stages 0 to 3": "deepspeed::loss_based_strategies_equal_one_process",
    "DeepSpeed, refused": "deepspeed::per_task_gradients_are_refused",
    "tensor parallelism": "other_wrappers::where_loss_based_strategies_work",
    "tensor parallelism, refused": "other_wrappers::and_so_they_are_under_tensor_parallelism",
    "an optimizer that steps in the backward pass": (
        "balancer::what_waits_for_a_parameter_s_gradient_gets_it_once"
    ),
    "compiled code on the disk; balancer in a compiled forward": (
        "compile::compiled_code_on_the_disk_and_a_balancer_in_the_compiled_forward"
    ),
    "compiled after a plain backward": "compile::a_plain_first_backward_of_a_compiled_model",
    "`fit` over two processes, accumulating": "several_processes::a_window_equals_one_process",
    "`fit` over two processes, bf16": "several_processes::bf16_is_that_of_one_process",
    "`fit`, resumed over another number of processes": (
        "several_processes::goes_on_over_another_number_of_processes"
    ),
    "`mtlweights train` under torchrun, killed and started again": (
        "launched::killed_and_started_again_it_ends_as_one_process"
    ),
    "`mtlweights train` under FSDP2, refused": (
        "launched::what_shards_cannot_do_is_one_line_before_training"
    ),
    "resume in a new process": "optimizer_steps::resume_in_a_new_process_is_bit_exact",
    "the programs of [](loops.md)": "examples::runs",
    "those in two processes": "examples::runs_in_two_processes",
}
Results = dict[str, dict[str, bool]]


def read(path: str) -> Results:
    """Test -> id -> whether it passed; skipped ones are left out."""
    out: Results = {}
    for case in ElementTree.parse(path).iter("testcase"):
        test, _, rest = case.attrib["name"].partition("[")
        file = case.attrib["classname"].rpartition(".")[2]
        key = f"{file.removeprefix('test_')}::{test.removeprefix('test_')}"
        bad = any(case.find(kind) is not None for kind in ("failure", "error"))
        if bad or case.find("skipped") is None:
            by_id = out.setdefault(key, {})
            by_id[rest[:-1]] = not bad and by_id.get(
                rest[:-1], True
            )  # an error after a pass is one more case
    return out


def several(name: str) -> bool:
    """Whether the strategy's step is made of several batches."""
    return strategies.get(name).batches > 1


def outcome(test: str, results: Results) -> str:
    """Of all cases of the test whose ids have these parts."""
    key, _, parts = test.rstrip("]").partition("[")
    wanted = set(parts.split("-")) - {""}
    found = [passed for by_id, passed in results.get(key, {}).items() if wanted <= {*by_id.split("-")}]
    return FAILED if not all(found) else TICK if found else NOT_RUN


def cell(column: Column, name: str, results: Results) -> str:
    """The worst outcome of the column's tests for a strategy, or that it is refused."""
    other = bool(column.several) and several(name)
    found = {outcome(test.format(name), results) for test in (column.several if other else column.tests)}
    if column.title == "FSDP2" and found == {NOT_RUN} and under_shards(name):
        return REFUSED
    worst = next(kind for kind in (FAILED, NOT_RUN, TICK) if kind in found)
    return f"{worst}ᵃ" if other and worst == TICK else worst


def rows(results: Results) -> dict[str, list[str]]:
    """Strategy -> cells."""
    return {name: [cell(column, name, results) for column in COLUMNS] for name in strategies.names()}


def said(action) -> str:
    """The error that ``action()`` raises; empty without one."""
    try:
        action()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""


def under_shards(name: str, gradients: str = "auto") -> str:
    """What FSDP2 with this strategy raises."""
    strategy = strategies.get(name)(3)
    return said(lambda: check_sharded(strategy, gradients))


def step(wrapped: nn.Module, reentrant: bool = False, **options: str) -> None:
    """The first step of two losses of a model."""
    balancer = Balancer("mgda", ["a", "b"], wrapped, **options)
    x = torch.ones(2, 2, requires_grad=True)
    out = checkpoint(wrapped, x, use_reentrant=True) if reentrant else wrapped(x)
    balancer({"a": out.sum(), "b": out.square().sum()}).backward()


def static_graph(model: nn.Module) -> nn.Module:
    """DDP of one process, with a static graph."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        return nn.parallel.DistributedDataParallel(model, static_graph=True)
    finally:
        dist.destroy_process_group()


def joined() -> None:
    """A step inside ``join()`` of a DDP of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        ddp = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
        with ddp.join():
            step(ddp)
    finally:
        dist.barrier()  # its thread still holds what join() sent, and would want the interpreter to free it
        dist.destroy_process_group()


class Parallel(nn.Parameter):
    """As a parameter on a device mesh."""

    device_mesh = None


class DeepSpeedEngine(nn.Linear):
    """Known to the balancer by its name, as the real one is."""


class FullyShardedDataParallel(nn.Linear):
    """FSDP1; likewise."""


def refusals() -> dict[str, str]:
    """What is refused -> the error, raised here and now."""
    linear = nn.Linear(2, 2)
    out = {
        "reentrant activation checkpointing": said(lambda: step(linear, reentrant=True)),
        "`static_graph=True` of DDP": said(lambda: step(static_graph(nn.Linear(2, 2)))),
        "`nn.DataParallel`": said(lambda: step(nn.DataParallel(linear))),
        "FSDP1, per-task gradients": said(lambda: step(FullyShardedDataParallel(2, 2))),
        "DeepSpeed, per-task gradients": said(lambda: step(DeepSpeedEngine(2, 2))),
        "`join()` of DDP": said(joined),
        "tensor parallelism, per-task gradients": said(lambda: fsdp.check_leaf(Parallel(linear.weight))),
        "FSDP2, `gradients='features'`": under_shards("mgda", gradients="features"),
        "a window whose end nothing tells": said(lambda: step(linear, accumulation="window")),
    }
    found = {name: under_shards(name) for name in strategies.names()}
    return out | {f"FSDP2, `{name}`": error for name, error in found.items() if error}


def table(head: list[str], body: list[list[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *body])


def named(test: str) -> str:
    """As pytest names it."""
    file, _, rest = test.format("…").partition("::")
    return f"`test_{file}.py::test_{rest}`"


def legend() -> str:
    """The columns, what holds, and the tests."""
    body = []
    for column in COLUMNS:
        tests = [named(test) for test in column.tests] + [f"{named(test)}ᵃ" for test in column.several]
        body.append([column.title, column.holds, "<br>".join(tests)])
    return table(["column", "what holds", "tests, … being the strategy"], body)


def ran(test: str, results: Results) -> str:
    """The strategies in the ids of a test's cases."""
    ids = {part for by_id in results.get(test, {}) for part in by_id.split("-")}
    return ", ".join(f"`{name}`" for name in strategies.names() if name in ids)


PAGE = """# Works with

Made by `docs/works_with.py` from the results of the test suite, on a CPU, with {versions}.
{tick} stands for tests that ran with this strategy and passed; *refused* for an error that says what to do,
quoted below the table.

{legend}

ᵃ A step of this strategy is made of several batches: it always has a window, and there is no one big batch.
Tested is that micro-batches fill its batches in turn, on a strategy made for that test, and that the Trainer,
Accelerate, Lightning and FSDP2 leave the parameters that a plain loop leaves.

## Strategy by loop

{cells}

## Loops tested with some strategies

Where no strategy is named, the test runs one or a few of its own choice.

{few}

## What is refused

{refusals}

These were raised when the page was made, those of FSDP1 and DeepSpeed by stand-ins of the same names; the
tests above run the real ones, on a CPU. Under them, and under tensor parallelism, the loss-based strategies
work.
"""


def page(results: Results) -> str:
    """The whole page, in Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    cells = [[f"`{name}`", *line] for name, line in rows(results).items()]
    few = [[what, ran(t, results), outcome(t, results), named(t)] for what, t in FEW.items()]
    return PAGE.format(
        versions=versions,
        tick=TICK,
        legend=legend(),
        cells=table(["strategy", *(column.title for column in COLUMNS)], cells),
        few=table(["loop", "strategies", "result", "test"], few),
        refusals=table(["what", "the error"], [[k, v] for k, v in refusals().items()]),
    )


if __name__ == "__main__":
    together: Results = {}
    for file in sys.argv[1:]:
        for test, by_id in read(file).items():
            together[test] = together.get(test, {}) | by_id
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(page(together), end="")
