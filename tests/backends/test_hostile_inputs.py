"""Inputs that hurt: by the suite's own rule the backends agree with the oracle on them, and a NaN goes where
it must and nowhere else, unless that is declared."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mtbench import AttentionSpec, Case, FunctionBackend
from mtbench.backend import (
    NAN_IN_K,
    NAN_IN_V,
    NAN_LOST,
    SCORES_ROUNDED,
    Backend,
    Caveat,
    Kernel,
    caveats_of,
)
from mtbench.frameworks import load_framework
from mtbench.inputs import NUMPY_DTYPES, Array, Inputs, make_inputs
from mtbench.measure.agreement import Judge
from mtbench.measure.environment import cpus
from mtbench.registry import load_backend
from mtbench.spec import ATTENTIONS
from mtbench.support import support_of

MARKS = {
    "torch-eager": pytest.mark.torch,
    "torch-compile": pytest.mark.torch,
    "triton": pytest.mark.triton,
    "jax": pytest.mark.jax,
    "jax-pallas": pytest.mark.jax,
    "native": pytest.mark.native,
}
DTYPES = {
    "torch-eager": ("float32", "bfloat16", "float16"),
    "triton": ("float32", "float16"),
    "jax": ("float32", "float16"),
    "jax-pallas": ("float32", "float16"),
}
COMPILED = {("softmax", "flex"), ("momentum", "parallel")}
"""Of torch.compile, which takes seconds a form: one of eager PyTorch's, and the one that it does not have."""

N = 97
"""Two blocks or more of every kernel but softmax's on a CPU, the last one ragged."""

Change = Callable[[Array], Array]


def _same(x: Array) -> Array:
    return x


def _by_row(x: Array, chosen: Any, shift: float) -> Array:
    return x + np.where(chosen(np.arange(x.shape[2])), np.float32(shift), np.float32(0))[:, None]


def _alternating(x: Array) -> Array:
    return np.where(np.arange(x.shape[2]) % 2, -1, 1)[:, None] * np.ones_like(x)


def _all(value: float) -> Change:
    return lambda x: np.full_like(x, value)


def _far(shift: float) -> Change:
    return lambda x: x + np.float32(shift)


def _third(x: Array) -> Array:
    return _by_row(x, lambda n: n % 3 == 1, -20)


def _first(x: Array) -> Array:
    return _by_row(x, lambda n: n < 9, -30)


def _times(factor: float) -> Change:
    return lambda x: x * np.float32(factor)


HOSTILE: dict[str, tuple[Change, Change, Change]] = {
    # What is done to q, k and v.
    "queries far below 0": (_far(-25), _same, _same),
    "keys far below 0": (_same, _far(-25), _same),
    "both below 0": (_far(-10), _far(-10), _same),
    "both so far below 0 that the denominator is eps": (_far(-25), _far(-25), _same),
    "both far below 0 in a third of the rows": (_third, _third, _same),
    "the first keys far below 0": (_same, _first, _same),
    "queries and keys constant": (_all(0.5), _all(0.5), _same),
    "values constant": (_same, _same, _all(1)),
    "all constant": (_all(0.5), _all(0.5), _all(1)),
    "all constant, below 0": (_all(-12), _all(-12), _all(-1)),
    "queries and keys 0": (_all(0), _all(0), _same),
    "values that cancel": (_all(0.5), _all(0.5), _alternating),
    "values 0": (_same, _same, _all(0)),
    "both far above 0": (_far(10), _far(10), _same),
    "both wide": (_times(30), _times(30), _same),
    "values large": (_same, _same, _times(1000)),
    "values far from 0": (_same, _same, _far(1000)),
}


def hostile(case: Case, name: str) -> Inputs:
    drawn, dtype = make_inputs(case), NUMPY_DTYPES[case.dtype]
    q, k, v = (
        np.asarray(change(x.astype(np.float32))).astype(dtype)
        for change, x in zip(HOSTILE[name], (drawn.q, drawn.k, drawn.v), strict=True)
    )
    return Inputs(q=q, k=k, v=v, do=drawn.do)


@functools.cache
def judge_of(case: Case, name: str) -> Judge:
    return Judge(case, hostile(case, name))


def skip_unless_here(backend: Backend, device: str) -> None:
    reason = backend.unavailable(device)
    if backend.name == "triton" and device == "cpu" and reason is None:
        import torch

        if torch.cuda.is_available():
            reason = "a GPU is here, and one process runs the kernels one way"
    if reason is not None:
        pytest.skip(reason)


def build(backend: Backend, case: Case, form: str) -> Kernel:
    framework = load_framework(backend.framework)
    framework.start(case.device, cpus())
    return backend.build(case, form)


def outputs(kernel: Kernel, inputs: Inputs) -> dict[str, Array]:
    kernel.load(inputs)
    result = kernel()
    kernel.wait(result)
    return dict(kernel.outputs(result))


def possible(backend: Backend, case: Case, form: str) -> Case | None:
    """The case, or as much of it as the backend does."""
    forward = case.replace(mode="forward")
    square = case.replace(value_dim=case.head_dim)
    for found in (case, square, forward, square.replace(mode="forward")):
        if backend.unsupported(found, form) is None:
            return found
    return None


def declares(backend: Backend, what: str, case: Case, form: str) -> bool:
    return any(c.what == what and c.applies(case, form) for c in caveats_of(backend))


def rows() -> Iterator[object]:
    for name in MARKS:
        backend = load_backend(name)
        for kind in ATTENTIONS:
            for form in backend.forms(kind):
                if name == "torch-compile" and (kind, form) != ("momentum", "parallel"):
                    continue
                for dtype in DTYPES.get(name, ("float32",)):
                    # JAX's linear attention is its momentum of beta 0, which is here; and in eager PyTorch
                    # the recurrent form computes in float32 whatever the dtype is.
                    repeated = name == "jax" or dtype != "float32"
                    if (kind == "linear" and repeated) or (
                        form == "recurrent" and name != "jax" and repeated
                    ):
                        continue
                    label = f"{name}-{form}-{kind}-{dtype}"
                    yield pytest.param(name, form, kind, dtype, id=label, marks=MARKS[name])


@pytest.mark.parametrize(("name", "form", "kind", "dtype"), list(rows()))
def test_agrees_with_the_oracle(name: str, form: str, kind: str, dtype: str) -> None:
    backend = load_backend(name)
    skip_unless_here(backend, "cpu")
    for causal, beta in ((True, 0.999), (False, 0.999), (True, 0.0)):
        if beta == 0 and (kind != "momentum" or dtype != "float32"):
            continue
        if not causal and (name == "torch-compile" or (name != "torch-eager" and dtype == "float16")):
            continue  # each takes seconds
        wanted = Case(
            spec=AttentionSpec(kind=kind, causal=causal, beta=beta, gamma=0.7),  # type: ignore[arg-type]
            heads=1,
            seq_len=N,
            head_dim=16,
            value_dim=9,
            dtype=dtype,  # type: ignore[arg-type]
            mode="forward" if name == "torch-compile" else "forward_backward",
        )
        case = possible(backend, wanted, form)
        if case is None:
            continue
        kernel = build(backend, case, form)
        wrong: dict[str, list[str]] = {}
        for inputs in HOSTILE:
            judge = judge_of(case, inputs)
            found = outputs(kernel, judge.inputs)
            assert judge.contract_problem(found) is None
            for array, agreement in judge.agreement(form, found).items():
                if not agreement.passes:
                    wrong.setdefault(inputs, []).append(f"{array} {agreement}")
        if declares(backend, SCORES_ROUNDED, case, form):
            assert "both below 0" in wrong, "the declaration is out of date"
            assert not {name for name in wrong if "constant" in name or "values" in name}, wrong
        else:
            assert not wrong, f"{case.id}: {wrong}"


LONG = [
    ("torch-eager", "chunked", 4_500),
    ("jax", "chunked", 4_500),
    ("native", "chunked", 4_500),
    ("triton", "fused", 2_100),
    ("jax-pallas", "fused", 2_100),
]


@pytest.mark.parametrize(
    ("name", "form", "n", "kind"),
    [
        pytest.param(*row, kind, id=f"{row[0]}-{kind}", marks=MARKS[row[0]])
        for row in LONG
        for kind in ATTENTIONS
        if row[1] in load_backend(row[0]).forms(kind)
    ],
)
def test_a_long_sequence(name: str, form: str, n: int, kind: str) -> None:
    """With beta near 1, another value_dim, and positions that hardly count."""
    backend = load_backend(name)
    skip_unless_here(backend, "cpu")
    wanted = Case(
        spec=AttentionSpec(kind=kind, beta=0.999),  # type: ignore[arg-type]
        heads=1,
        seq_len=500 if (name, kind) == ("triton", "softmax") else n,  # interpreted, and quadratic
        head_dim=8,
        value_dim=24,
        mode="forward_backward",
    )
    case = possible(backend, wanted, form)
    assert case is not None
    judge = judge_of(case, "both far below 0 in a third of the rows")
    for array, agreement in judge.agreement(form, outputs(build(backend, case, form), judge.inputs)).items():
        assert agreement.passes, f"{array} of {case.id}: {agreement}"


def nan_rows(device: str) -> Iterator[object]:
    for name in MARKS:
        backend = load_backend(name)
        for kind in ATTENTIONS:
            for form in backend.forms(kind):
                if name == "torch-compile" and (kind, form) not in COMPILED and device == "cpu":
                    continue
                marks = [MARKS[name], *([pytest.mark.gpu] if device == "cuda" else [])]
                yield pytest.param(name, form, kind, device, id=f"{name}-{form}-{kind}-{device}", marks=marks)


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # Triton's interpreter is NumPy
@pytest.mark.parametrize(("name", "form", "kind", "device"), [*nan_rows("cpu"), *nan_rows("cuda")])
def test_a_nan_reaches_the_rows_that_see_it_and_no_other(
    name: str, form: str, kind: str, device: str
) -> None:
    """Unless that is declared; and what is declared is so."""
    backend = load_backend(name)
    skip_unless_here(backend, device)
    for causal in (True, False):
        if name == "torch-compile" and device == "cpu" and not causal:
            continue
        for dtype in ("float32", "bfloat16") if device == "cuda" else ("float32",):
            wanted = Case(
                spec=AttentionSpec(kind=kind, causal=causal),  # type: ignore[arg-type]
                heads=2,
                # On a GPU blocks are longer, and some sums of them are mixed with those of others.
                seq_len=300 if device == "cuda" else N,
                head_dim=16,
                value_dim=24,
                device=device,  # type: ignore[arg-type]
                dtype=dtype,  # type: ignore[arg-type]
            )
            case = possible(backend, wanted, form)
            if case is not None:
                follow_a_nan(backend, case, form)


@pytest.mark.torch
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_a_nan_in_padding(kind: str, causal: bool) -> None:
    backend = load_backend("torch-eager")
    spec = AttentionSpec(kind=kind, causal=causal)  # type: ignore[arg-type]
    case = Case(spec=spec, heads=2, seq_len=N, head_dim=8, lengths=(70,))
    for form in backend.forms(kind):
        follow_a_nan(backend, case, form)


def test_a_backend_may_have_no_caveats_and_a_function_may_have_some() -> None:
    caveat = Caveat(what=NAN_IN_V, reason="of mine", applies=lambda case, form: form == "whole")
    mine = FunctionBackend(
        name="mine",
        framework="numpy",
        functions={("linear", "whole"): lambda q, k, v, case: v},
        caveats=(caveat,),
    )
    assert declares(mine, NAN_IN_V, Case(), "whole")
    assert not declares(mine, NAN_IN_V, Case(), "other")
    assert support_of(mine)["caveats"] == [{"what": NAN_IN_V, "reason": "of mine"}]

    class Bare:
        """Another's class, written before there were caveats."""

        name, framework, limits = "bare", "numpy", ()
        forms = unavailable = unsupported = build = mine.forms

    assert isinstance(Bare(), Backend)
    assert support_of(Bare())["caveats"] == []


@pytest.mark.parametrize("given", [None, (), np.zeros(3)], ids=["nothing", "a tuple", "an array"])
def test_a_function_that_gives_no_tensor_is_told_so(given: object) -> None:
    mine = FunctionBackend(
        name="mine", framework="torch", functions={("linear", "whole"): lambda q, k, v, case: given}
    )
    case = Case(spec=AttentionSpec(kind="linear"), heads=1, seq_len=4, head_dim=2)
    told = f"^a torch tensor is wanted, and the kernel gave {type(given).__name__}$"
    with pytest.raises(TypeError, match=told):
        build(mine, case, "whole").outputs((given,))


def follow_a_nan(backend: Backend, case: Case, form: str) -> None:
    """Put one NaN at a position of the second head's q, k and v in turn, and look where it comes out."""
    kernel = build(backend, case, form)
    at, number = case.seq_len * 5 // 6, np.arange(case.seq_len)
    reached_all = []
    for array in "qkv":
        inputs = make_inputs(case)
        getattr(inputs, array)[0, 1, at, 5] = np.nan
        with np.errstate(invalid="ignore"):
            found = np.isnan(outputs(kernel, inputs)["o"].astype(np.float32))
        what = f"a NaN in {array} of {case.id}, {form}"
        assert not found[0, 0].any(), f"{what} is in another head"
        if array == "q":
            sees = number == at
        elif at >= case.key_lengths[0]:
            sees = np.zeros(case.seq_len, bool)
        else:
            sees = number >= at if case.spec.causal else np.ones(case.seq_len, bool)
        # A value's NaN belongs to its own column.
        reached = found[0, 1, :, 5] if array == "v" else found[0, 1].all(-1)
        lost = array != "v" and declares(backend, NAN_LOST, case, form)
        if lost:
            reached_all.append(reached[sees].all())
        else:
            assert reached[sees].all(), f"{what} is lost"
        leaks = found[0, 1].any(-1)[~sees].any()
        if array == "q":
            assert not leaks, f"{what} is in other rows"
        elif not lost:
            declared = declares(backend, {"k": NAN_IN_K, "v": NAN_IN_V}[array], case, form)
            assert declared or not leaks, f"{what} is in rows that do not see it"
            # What is said of a key that later rows see need not be so of padding, which none sees.
            stale = declared and not leaks and (array == "v" or sees.any())
            assert not stale, f"{what} is in no other rows: the declaration is old"
    assert not reached_all or not all(reached_all), f"NaNs are not lost in {form}: the declaration is old"
