"""What a backend is, how it declares what it cannot do, and how one is found by name.

A backend is one object named ``BACKEND`` in a module of its own. Ten lines are enough; `FunctionBackend`
supplies the rest::

    from mtbench import FunctionBackend


    def momentum(q, k, v, case):  # torch tensors on case.device, in case.dtype
        ...  # returns [batch, heads, seq_len, value_dim]


    BACKEND = FunctionBackend(name="mine", framework="torch", functions={("momentum", "fused"): momentum})

``mtbench run --backend ./mine.py`` measures it; a package makes it known by name through an entry point in
the group ``mtbench.backends``.
"""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from mtbench.errors import BadInput
from mtbench.inputs import Array, Inputs
from mtbench.spec import ATTENTIONS, Case

__all__ = [
    "NAN_IN_K",
    "NAN_IN_V",
    "NAN_LOST",
    "SCORES_ROUNDED",
    "TF32",
    "Applicable",
    "AttentionFunction",
    "Backend",
    "Caveat",
    "DeclaredBackend",
    "Decoder",
    "Decodes",
    "Kernel",
    "Limit",
    "Partial",
    "Requirement",
    "Spread",
    "Unsupported",
    "caveats_of",
    "dims_up_to",
    "form_for",
    "is_interpreted",
    "partial_of",
    "refuse_interpreted",
]

LimitKind = Literal["notimpl", "notyet", "never"]

AttentionFunction = Callable[[Any, Any, Any, Case], Any]
"""``(q, k, v, case) -> o`` on a framework's own arrays, each [batch, heads, positions, dim]."""


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """Why a backend does not do a case: ``notimpl`` (we could), ``notyet`` (upstream must first) or
    ``never`` (it makes no sense)."""

    kind: LimitKind
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One declared limit, shown in the support table word for word.

    `applies(case, form)` says whether it stops that case; it must not import a framework.
    """

    kind: LimitKind
    what: str
    """What is not done, as a reader would say it: ``head_dim above 128``."""
    reason: str
    applies: Callable[[Case, str], bool] = field(compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Caveat:
    """What a backend does with inputs out of the ordinary that a reader may not expect.

    It stops no case, unlike a `Limit`: on inputs like the suite's own the numbers are right.
    `applies(case, form)` says where it holds; it must not import a framework.
    """

    what: str
    """As a reader would say it. Backends that do the same use the same words, as `NAN_IN_V`."""
    reason: str
    applies: Callable[[Case, str], bool] = field(compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Partial:
    """Work that a form leaves out of what is timed, and does before or after it for the oracle to judge.

    Such a row is shown, and never ranked. `applies(case, form)` must not import a framework.
    """

    what: str
    """As a reader would say it: ``without feature map and normaliser``."""
    applies: Callable[[Case, str], bool] = field(compare=False, repr=False)


NAN_IN_K = "a NaN in k also reaches rows that do not see it"
NAN_IN_V = "a NaN in v also reaches rows that do not see it"
NAN_LOST = "a NaN in q or k does not reach every row that sees it"
SCORES_ROUNDED = "in half precision large scores are too coarse for the softmax"


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A distribution that must be installed, at this version or a newer one."""

    distribution: str
    minimum: str
    below: str | None = None
    """The first version that does not do, or is not known to."""

    def missing(self) -> str | None:
        """Why this machine does not meet it, or None. Reads metadata; imports nothing.

        >>> Requirement(distribution="no-such-thing", minimum="1").missing()
        'no-such-thing is not installed (needs >= 1)'
        >>> Requirement(distribution="numpy", minimum="1", below="2").missing() is None
        False
        """
        from packaging.version import Version

        try:
            found = importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return f"{self.distribution} is not installed (needs >= {self.minimum})"
        if Version(found) < Version(self.minimum):
            return f"{self.distribution} {found} is older than {self.minimum}"
        if self.below is not None and Version(found) >= Version(self.below):
            return f"{self.distribution} {found} is not older than {self.below}"
        return None


@runtime_checkable
class Kernel(Protocol):
    """One case, built: what is timed is the call alone."""

    layout: str
    """How q, k and v lie in memory: ``bhnd`` is [batch, heads, positions, dim]."""
    untimed: str | None
    """Why its time means nothing (``interpreted``), or None."""

    def load(self, inputs: Inputs) -> None:
        """Copy the inputs to the device, in this kernel's layout. Never timed."""

    def __call__(self) -> Any:
        """Start the work, and return a handle of its results. Timed, `wait` included."""

    def wait(self, result: Any) -> None:
        """Return when every output is computed."""

    def outputs(self, result: Any) -> Mapping[str, Array]:
        """``o`` as NumPy [batch, heads, seq_len, value_dim]; in mode forward_backward also ``dq``, ``dk``
        and ``dv``, shaped as q, k and v."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What it chose for itself: block sizes, warps, the algorithm."""


@runtime_checkable
class Spread(Protocol):
    """A kernel over several devices, a process each, beside what `Kernel` says: it times itself, as the
    processes' clocks are not the caller's."""

    def sample_ms(self) -> float:
        """One call, from when all devices are ready, with the caches of each flushed, to when its own outputs
        are computed: of the device that takes longest."""

    def processes(self) -> tuple[int, ...]:
        """The ids of those processes: what they do is the kernel's own work."""

    def peaks(self) -> tuple[list[int | None], str]:
        """The peak memory of each, and how it was read."""

    def traffic(self) -> tuple[int, float]:
        """Of a call: the bytes that a device sends, and the milliseconds that its work stands still for what
        others send; of the device that has most."""


@runtime_checkable
class Applicable(Protocol):
    """A kernel that a model can call. What the adapter of torch builds is one."""

    layout: str
    """See `Kernel.layout`."""

    def apply(self, q: Any, k: Any, v: Any, lengths: Any = None) -> Any:
        """The attention of the framework's own arrays, of the case's sizes, dtype and device, in `layout`;
        their strides may be any, as a model's are. The framework's autodiff goes through it in mode
        forward_backward.

        Where the backend has ``lengths_at_call`` and the case has lengths, `lengths` takes their place: an
        array [batch] of integers on the device, each 1..kv_len. Nothing waits for it, so a number outside of
        that is not seen.
        """


@runtime_checkable
class Backend(Protocol):
    """A way to compute the attentions. Constructing it, and every method but `build`, loads no framework.

    It may also have ``lengths_at_call`` (`Applicable.apply`), ``caveats``, a tuple of `Caveat`, ``partials``,
    one of `Partial`, and ``interpreted_on``, names of devices: read them with `caveats_of`, `partial_of` and
    `is_interpreted`. One that takes cases of a world_size above 1 has ``spreads``, true; one whose framework
    needs variables of its own in a worker's environment has them in ``environment``.
    """

    name: str
    framework: str
    """Whose arrays it uses: a module of `mtbench.frameworks` (``torch``, ``jax``, ``numpy``)."""
    limits: tuple[Limit, ...]

    def forms(self, kind: str) -> tuple[str, ...]:
        """The forms it has of one attention: ``parallel``, ``chunked``, ``recurrent``, ``fused``, ..."""

    def unavailable(self, device: str) -> str | None:
        """What this machine lacks to run it on that device, or None."""

    def unsupported(self, case: Case, form: str) -> Unsupported | None:
        """Why it does not do this case in this form, or None."""

    def build(self, case: Case, form: str) -> Kernel:
        """Everything that needs the sizes but not the data, ahead-of-time compilation included."""


def caveats_of(backend: Backend) -> tuple[Caveat, ...]:
    """What a backend declares as its caveats: none, where it says nothing of them."""
    return tuple(getattr(backend, "caveats", ()))


def is_interpreted(backend: Backend, device: str) -> bool:
    """Whether its kernels are only interpreted on that device: right numbers slowly, and no times."""
    return device in getattr(backend, "interpreted_on", ())


def refuse_interpreted(backend: Backend, device: str, *, why: str, instead: str) -> None:
    """Of what has no use for kernels that are only interpreted.

    Args:
        backend: the one that is asked for.
        device: where.
        why: what is lost, after a comma.
        instead: what may be given in place of ``--device cuda``.

    Raises:
        BadInput: its kernels are only interpreted on that device.
    """
    if is_interpreted(backend, device):
        told = f"backend {backend.name!r} is only interpreted on {device}"
        raise BadInput(f"{told}, {why}: give --device cuda, or {instead}")


def dims_up_to(most: int) -> tuple[Limit, Limit]:
    """The limits of kernels of which a program holds whole rows of q and k."""
    return (
        Limit(
            kind="notimpl",
            what=f"head_dim above {most}",
            reason="a program holds whole rows of q and k, which would have to be split",
            applies=lambda case, form: case.head_dim > most,
        ),
        Limit(
            kind="notimpl",
            what=f"value_dim above {most}",
            reason="no tile sizes were chosen for it",
            applies=lambda case, form: case.value_dim > most,
        ),
    )


TF32 = "-tf32"
"""How the name of a form ends that multiplies float32 in TF32, ten bits of mantissa: it is judged as such."""


def partial_of(backend: Backend, case: Case, form: str) -> str | None:
    """What a form leaves out of the timed work of a case, or None where it does it all."""
    partials: tuple[Partial, ...] = getattr(backend, "partials", ())
    return next((partial.what for partial in partials if partial.applies(case, form)), None)


def form_for(backend: Backend, case: Case, form: str | None = None) -> str:
    """The form a case is computed in: the one that is asked for, or the backend's first that does the case.

    Raises:
        BadInput: the backend cannot run on the case's device here, has no such form, or does not do the case
            in it; the message says which limit.
    """
    name, kind = backend.name, case.spec.kind
    if reason := backend.unavailable(case.device):
        raise BadInput(f"backend {name!r} cannot run on {case.device} here: {reason}")
    forms = backend.forms(kind)
    if form is not None and form not in forms:
        raise BadInput(
            f"backend {name!r} has no form {form!r} of {kind} attention, it has: {', '.join(forms) or 'none'}"
        )
    limits = {one: backend.unsupported(case, one) for one in ([form] if form else forms)}
    able = [one for one, limit in limits.items() if limit is None]
    if not able:
        why = "; ".join(f"{one}: {limit}" for one, limit in limits.items())
        raise BadInput(f"backend {name!r} does not do this case ({why or f'no form of {kind} attention'})")
    return able[0]


@runtime_checkable
class Decoder(Protocol):
    """Causal attention one token at a time, for a batch of sequences, in tensors that stay where they are: a
    CUDA graph can hold a `step`."""

    def step(self, q: Any, k: Any, v: Any) -> Any:
        """The next token of each: q and k [batch, heads, head_dim] and v [batch, heads, value_dim] to o
        [batch, heads, value_dim], in v's dtype."""

    def clear(self) -> None:
        """Before the first token again."""

    @property
    def held_bytes(self) -> int:
        """The memory of what it keeps."""


@runtime_checkable
class Decodes(Protocol):
    """A backend that has a `Decoder` of some cases."""

    def decoder(self, case: Case) -> Decoder:
        """That of a causal case's spec, batch, heads, dims, dtype and device, for at most its seq_len
        tokens.

        Raises:
            BadInput: it has none of that case.
        """


GROUPED_HEADS = Limit(
    kind="notimpl",
    what="kv_heads other than heads",
    reason="grouped heads are in the spec and in no backend yet",
    applies=lambda case, form: case.kv_heads != case.heads,
)
KV_LEN = Limit(
    kind="notimpl",
    what="kv_len other than seq_len",
    reason="cross-attention is in torch-eager, torch-compile and triton so far",
    applies=lambda case, form: case.kv_len != case.seq_len,
)
LENGTHS = Limit(
    kind="notimpl",
    what="lengths (padding)",
    reason="per-sequence lengths are in torch-eager, torch-compile and triton so far",
    applies=lambda case, form: case.lengths is not None,
)
ALIKE = (GROUPED_HEADS, KV_LEN, LENGTHS)
"""Of a backend whose k and v have the heads and the positions of q, all of them real."""
FORWARD_ONLY = Limit(
    kind="notimpl",
    what="mode forward_backward",
    reason="the backward is not written yet",
    applies=lambda case, form: case.mode == "forward_backward",
)


ONE_DEVICE = Unsupported(
    kind="notimpl", reason="world_size above 1: it works on one device, and torch-distributed on several"
)


@dataclass(frozen=True, kw_only=True)
class DeclaredBackend(ABC):
    """A backend whose forms, needs and limits are data; a subclass adds `build`."""

    name: str
    framework: str
    form_table: Mapping[str, tuple[str, ...]]
    """The forms of each attention kind."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    lengths_at_call: bool = False
    """Whether a kernel of a case with lengths takes others at its call: what a model of sequences of varied
    lengths needs, which would build a kernel a batch otherwise."""
    interpreted_on: tuple[str, ...] = ()
    """Of the devices, those on which its kernels are interpreted: such a row has errors and no times."""
    requires: tuple[Requirement, ...] = ()
    limits: tuple[Limit, ...] = ()
    """Checked in order; the first that applies is the reason."""
    caveats: tuple[Caveat, ...] = ()
    partials: tuple[Partial, ...] = ()
    spreads: bool = False
    """Whether it takes cases over several devices."""

    def __post_init__(self) -> None:
        for kind in self.form_table:
            if kind not in ATTENTIONS:
                raise ValueError(f"backend {self.name!r} has forms of an unknown attention {kind!r}")

    def forms(self, kind: str) -> tuple[str, ...]:
        """See `Backend.forms`."""
        return self.form_table.get(kind, ())

    def unavailable(self, device: str) -> str | None:
        """See `Backend.unavailable`."""
        if device not in self.devices:
            return f"{self.name} runs on {', '.join(self.devices)}"
        for requirement in self.requires:
            if reason := requirement.missing():
                return reason
        return None

    def unsupported(self, case: Case, form: str) -> Unsupported | None:
        """See `Backend.unsupported`."""
        if form not in self.forms(case.spec.kind):
            return Unsupported(kind="notimpl", reason=f"no {form} form of {case.spec.kind} attention")
        if case.world_size > 1 and not self.spreads:
            return ONE_DEVICE
        for limit in self.limits:
            if limit.applies(case, form):
                return Unsupported(kind=limit.kind, reason=f"{limit.what}: {limit.reason}")
        return None

    @abstractmethod
    def build(self, case: Case, form: str) -> Kernel:
        """See `Backend.build`."""
