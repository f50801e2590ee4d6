"""Breaks the engine, forms of sharing and ways of training, one fault at a time; shows the tests that notice.

``python tests/breaks/break_on_purpose.py`` copies the package to a temporary folder, makes one change there,
runs the tests named beside it and expects them to fail; the sound copy must pass first. Exit status 1 if a
break goes unnoticed. About twenty minutes.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LIMIT = 240  # seconds


class Break(NamedTuple):
    """One fault: what is lost, where, and who should notice."""

    what: str
    file: str
    sound: str
    broken: str
    tests: str


BREAKS = [
    Break(
        "a trunk is gone through twice, where an edge into it lies behind another",
        "gradients/batched.py",
        "apart or not inside.isdisjoint(node for node, _ in entering)",
        "apart",
        "tests/gradients/test_batched.py -k ways",
    ),
    Break(
        "of a batched pass in parts each is the first one's",
        "gradients/batched.py",
        "zip(found[start:], ",
        "zip(found, ",
        "tests/gradients/test_batched.py -k transformer",
    ),
    Break(
        "losses are not averaged over the ranks",
        "gradients/ranks.py",
        "        dist.all_reduce(packed, group=self.group)\n",
        "",
        "tests/gradients/test_ranks.py",
    ),
    Break(
        "rows are not averaged over the ranks",
        "gradients/ranks.py",
        "        dist.all_reduce(whole, group=self.group)\n        tail = whole",
        "        dist.all_reduce(whole.clone(), group=self.group)\n        tail = whole",
        "tests/gradients/test_ranks.py",
    ),
    Break(
        "a rank's rows count the same, however many items they are over",
        "gradients/packing.py",
        "piece.copy_(dense.reshape(-1)).mul_(count)",
        "piece.copy_(dense.reshape(-1))",
        "tests/gradients/test_ranks.py",
    ),
    Break(
        "a rank's factors count the same, however many items they are over",
        "gradients/messages.py",
        ".double() * tensors[0][i]",
        ".double()",
        "tests/gradients/test_exchange.py",
    ),
    Break(
        "gradients that were weighted first are not added up over the ranks",
        "gradients/write_grad.py",
        "        ranks.total(found, leaves, apart)\n",
        "        pass\n",
        "tests/gradients/test_exchange.py",
    ),
    Break(
        "Gramians of shards are not added up (FSDP2)",
        "gradients/fsdp.py",
        "    dist.all_reduce(gram, group=mesh.get_group(mesh.ndim - 1))\n",
        "",
        "tests/gradients/test_fsdp.py",
    ),
    Break(
        "the incoming factor is not divided out of the Gramian",
        "balancer/step/weights.py",
        "scale = np.where(np.arange(k) < n, host[-1], 1.0)",
        "scale = np.ones(k)",
        "tests/balancer/test_balancer.py -k fairgrad",
    ),
    Break(
        "a new gradient replaces the one that is there, of a micro-batch before (DDP)",
        "gradients/write_grad.py",
        "        param.grad.add_(gradient)\n",
        "        param.grad = gradient\n",
        "tests/balancer/step/test_law_of_grad.py -k written",
    ),
    Break(
        "a step that the device skipped is taken for one",
        "balancer/state/state.py",
        "ok = ok & (found_inf.to(ok.device).reshape(()) == 0)",
        "pass",
        "tests/balancer/state/test_optimizer_steps.py -k overflow",
    ),
    Break(
        "a loss that is not finite moves the state",
        "balancer/step/weights.py",
        "step.change.ok, weights = nothing == 0, weights + nothing",
        "step.change.ok, weights = torch.ones((), dtype=torch.bool), weights + nothing",
        "tests/balancer/state/test_optimizer_steps.py -k finite",
    ),
    Break(
        "the moments of learned weights are not saved",
        "balancer/state/state.py",
        "k: [x.clone() for x in pair] for k, pair in self.learned.moments.items()",
        "k: [x * 0 for x in pair] for k, pair in self.learned.moments.items()",
        "tests/balancer/state/test_optimizer_steps.py -k resume",
    ),
    Break(
        "kept rows are not saved",
        "balancer/state/row_state.py",
        "return {key: {n: x.clone() for n, x in by.items()} for key, by in self._by_name().items()}",
        "return {}",
        "tests/balancer/state/test_row_state.py -k resume",
    ),
    Break(
        "micro-batches of a window count the same, however many items they hold",
        "balancer/state/window.py",
        "part = part * count.to(part.dtype)",
        "part = part * 1.0",
        "tests/balancer/state/test_window.py -k pcgrad",
    ),
    Break(
        "the Gramian is computed in the caller's autocast",
        "gradients/switches.py",
        "    with torch.autocast(device.type, enabled=False):\n        yield",
        "    yield",
        "tests/gradients/test_switches.py",
    ),
    Break(
        "reentrant checkpointing passes, and its rows are silently zero",
        "gradients/graph.py",
        'if kind == "CheckpointFunctionBackward":',
        "if False:",
        "tests/balancer/test_arguments.py -k reentrant",
    ),
    Break(
        "compiled code of another run, which gives its buffers away, is taken from the disk",
        "gradients/switches.py",
        'cache.cache_key_tag = f"{cache.cache_key_tag} buffers kept"',
        "pass",
        "tests/integrations/test_compile.py -k disk",
    ),
    Break(
        "an optimizer in the backward pass steps before the state is proposed",
        "balancer/step/engine.py",
        "        decided(step)\n",
        "        functions.after_backward(partial(decided, step))\n",
        "tests/balancer/test_balancer.py -k waits",
    ),
    Break(
        "a micro-batch under FSDP2 is left unreduced",
        "gradients/fsdp.py",
        "root.set_requires_gradient_sync(True, recurse=False)",
        "pass",
        "tests/gradients/test_fsdp_loops.py -k reduce",
    ),
    Break(
        "the end of a window is believed, whoever told it",
        "balancer/state/optimizer_steps.py",
        "            self.window.check_stepped()\n",
        "            pass\n",
        "tests/balancer/state/test_window.py -k another_loop",
    ),
    Break(
        "ranks of other models are averaged over as well",
        "gradients/ranks.py",
        'self.group = getattr(self.wrapper, "process_group", None) if group is None else group',
        "self.group = None",
        "tests/gradients/test_process_groups.py",
    ),
    Break(
        "zeros of a compiled graph count as gradients",
        "gradients/graph.py",
        "            places = self._probe(*edge)\n",
        "            places = None\n",
        "tests/balancer/step/test_law_of_grad.py -k compiled",
    ),
    Break(
        "a parameter that is met later gets no gradient",
        "gradients/shared_parameters.py",
        "        found = behind.leaves\n",
        "        met = self.record.entries\n"
        "        found = [p for p in behind.leaves if not met or id(p) in met]\n",
        "tests/balancer/step/test_law_of_grad.py -k plain_sum",
    ),
    Break(
        "a step is about the tasks of this batch alone: what was shared is not remembered",
        "gradients/leaves.py",
        "            known.tasks |= tasks\n",
        "            known.tasks = tasks\n",
        "tests/balancer/test_balancer.py -k stays_shared",
    ),
    Break(
        "the graph is freed although another term of the backward goes through it",
        "gradients/functions.py",
        "keep = again or _shared_graph(ctx)",
        "keep = again",
        "tests/balancer/step/test_law_of_grad.py -k function_of_the_leaves",
    ),
    Break(
        "hooks see the gradients of tasks",
        "gradients/graph.py",
        "        hooks.clear()  #",
        "        pass  #",
        "tests/balancer/step/test_law_of_grad.py -k hook",
    ),
    Break(
        "inputs of a network count as its parameters",
        "gradients/leaves.py",
        "        return own if any(own) else [True] * len(own)\n",
        "        return [True] * len(own)\n",
        "tests/balancer/step/test_law_of_grad.py -k inputs",
    ),
    Break(
        "only an attached optimizer commits",
        "balancer/state/optimizer_steps.py",
        "        if optimizer in self._attached or self._holds(optimizer):\n            return True\n",
        "        return optimizer in self._attached\n",
        "tests/balancer/state/test_law_of_state.py",
    ),
    Break(
        "what one backward proposes is committed by every optimizer that steps after it",
        "balancer/state/state.py",
        "        if found_inf is None:\n            self.drop()\n",
        "        if found_inf is None:\n            pass\n",
        "tests/balancer/state/test_law_of_state.py",
    ),
    Break(
        "inner products are summed in float32",
        "gradients/inner_products.py",
        "    wide = torch.empty(m, step, dtype=torch.float64)\n",
        "    wide = torch.empty(m, step, dtype=torch.float32)\n",
        "tests/gradients/test_inner_products.py -k every_mode",
    ),
    Break(
        "a negative loss is taken by a strategy that cannot take one",
        "balancer/step/weights.py",
        "        if least < -ROUNDING",
        "        if False and least < -ROUNDING",
        "tests/strategies/test_signs.py",
    ),
    Break(
        "gates do not sum to one",
        "problems/models/sharing/experts.py",
        "shares = torch.softmax(gate(x), -1)",
        "shares = torch.sigmoid(gate(x))",
        "tests/problems/test_sharing.py -k mmoe",
    ),
    Break(
        "PLE: own and shared experts swapped under the gate",
        "problems/models/sharing/experts.py",
        "[*own[t], *shared]",
        "[*shared, *own[t]]",
        "tests/problems/test_sharing.py -k ple",
    ),
    Break(
        "PLE: gate of the lower level reads the bottom",
        "problems/models/sharing/experts.py",
        "mix(gates[self.index(t)], at[t], [",
        "mix(gates[self.index(t)], hidden, [",
        "tests/problems/test_sharing.py -k ple",
    ),
    Break(
        "cross-stitch: rows and columns swapped behind the last layer",
        "problems/models/sharing/stitch.py",
        "{task: together @ rows[self.index(task)] for",
        "{task: together @ torch.stack([*rows])[:, self.index(task)] for",
        "tests/problems/test_sharing.py -k stitch",
    ),
    Break(
        "MTAN: masks are handed on as they are",
        "problems/models/sharing/attention.py",
        "self.passed_on[number - 1](before)], -1)",
        "before], -1)",
        "tests/problems/test_sharing.py -k mtan",
    ),
    Break(
        "MTAN: mask without sigmoid",
        "problems/models/sharing/attention.py",
        ", nn.Linear(inner, out), nn.Sigmoid())",
        ", nn.Linear(inner, out), nn.Tanh())",
        "tests/problems/test_sharing.py -k mtan",
    ),
    Break(
        "task-dependent: private layers are the first task's",
        "problems/models/sharing/layerwise.py",
        'self.index(task) if k in self.said["private"] else 0',
        "0",
        "tests/problems/test_sharing.py -k own",
    ),
    Break(
        "copies of a block are one block",
        "problems/models/sharing/stack.py",
        "return copy.deepcopy(self._taken[k])",
        "return self._taken[k]",
        "tests/problems/test_sharing.py -k copies",
    ),
    Break(
        "score of the last label left out",
        "problems/models/crf.py",
        "torch.logsumexp(last + self.end, -1)",
        "torch.logsumexp(last, -1)",
        "tests/problems/test_crf.py -k likelihood",
    ),
    Break(
        "backward pass with transitions from, to swapped",
        "problems/models/crf.py",
        "self.end, self.transitions.T, torch.amax",
        "self.end, self.transitions, torch.amax",
        "tests/problems/test_crf.py -k decoding",
    ),
    Break(
        "staged heads learn from the losses of those that read them",
        "problems/models/cascade.py",
        "output.detach() if self.detach else output",
        "output",
        "tests/problems/test_cascade.py -k detached",
    ),
    Break(
        "the loss of an answer stops at the decoder",
        "problems/models/sequences.py",
        "last_hidden_state=states.tokens)",
        "last_hidden_state=states.tokens.detach())",
        "tests/problems/test_sequences.py -k goes_back",
    ),
    Break(
        "shares that are annealed stay those of the first epoch",
        "train/loop.py",
        "self.order.start(epoch, self.settings.epochs, tasks)",
        "self.order.start(1, self.settings.epochs, tasks)",
        "tests/train/test_sampling.py -k annealing",
    ),
    Break(
        "first-order MAML learns from the support set again",
        "train/meta.py",
        "loss(run(weights), query))(end)",
        "loss(run(weights), support))(end)",
        "tests/train/test_meta.py -k papers",
    ),
    Break(
        "mixup: the shares of the two losses swapped",
        "train/extras.py",
        "m * loss + (1 - m) * self",
        "(1 - m) * loss + m * self",
        "tests/train/test_extras.py -k mixup",
    ),
    Break(
        "FreeLB measures its steps by embeddings that are moved already",
        "train/adversarial.py",
        "length = (output.detach() - move).norm()",
        "length = output.detach().norm()",
        "tests/train/test_extras.py -k freelb_is",
    ),
]


def notices(folder: Path, tests: str) -> bool:
    """Whether the tests fail in this copy; ranks that wait for each other for ever are a failure too."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    run = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)
    try:
        said, _ = run.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        return True
    if run.returncode not in (0, 1):
        raise RuntimeError(f"pytest {tests} did not run:\n{said[-2000:]}")
    return run.returncode == 1


def main() -> int:
    """One line per break; 1 if one went unnoticed."""
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("mtlweights", "tests", "docs"):
            shutil.copytree(
                ROOT / part, folder / part, ignore=shutil.ignore_patterns("_build", "__pycache__")
            )
        shutil.copy(ROOT / "setup.cfg", folder)
        passed = set()
        for fault in BREAKS:
            if fault.tests not in passed and notices(folder, fault.tests):
                raise RuntimeError(f"{fault.tests} fails before anything is broken")
            passed.add(fault.tests)
            path = folder / "mtlweights" / fault.file
            sound = path.read_text(encoding="utf-8")
            if fault.sound not in sound:
                raise RuntimeError(f"{fault.file} has no place for: {fault.what}")
            path.write_text(sound.replace(fault.sound, fault.broken), encoding="utf-8")
            seen = notices(folder, fault.tests)
            path.write_text(sound, encoding="utf-8")
            missed += not seen
            print(f"{'noticed ' if seen else 'MISSED  '} {fault.what}: {fault.tests}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
