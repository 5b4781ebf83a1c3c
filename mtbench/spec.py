"""What is computed: the attention and the case. Imports no framework.

Equation numbers are those of "Momentum Transformer" (arXiv 2208.00579).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from mtbench.errors import BadInput, nearest

__all__ = [
    "ATTENTIONS",
    "DEVICES",
    "DTYPES",
    "MODES",
    "AttentionSpec",
    "Case",
    "exact",
]

Kind = Literal["softmax", "linear", "momentum"]
Dtype = Literal["float32", "bfloat16", "float16"]
Device = Literal["cpu", "cuda"]
Mode = Literal["forward", "forward_backward"]

ATTENTIONS: tuple[Kind, ...] = get_args(Kind)
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
DEVICES: tuple[Device, ...] = get_args(Device)
MODES: tuple[Mode, ...] = get_args(Mode)


_FOLLOWS = {"kv_len": "seq_len", "value_dim": "head_dim", "kv_heads": "heads"}
"""Sizes that by default are another's."""


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise BadInput(f"unknown {what} {value!r}: {nearest(str(value), known)}")


def exact(value: float) -> str:
    """A number in six digits, or in all it has where those are another's: no two numbers have one text.

    >>> exact(0.9), exact(1.0), exact(1e-06), exact(0.99999995)
    ('0.9', '1', '1e-06', '0.99999995')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


@dataclass(frozen=True, kw_only=True)
class AttentionSpec:
    """One of the three attentions.

    With ``phi`` the feature map and positions 1..N:

    - ``softmax`` (eq 1): ``o_i = sum_j softmax_j(scale * q_i . k_j) v_j``.
    - ``linear`` (eq 8): ``o_i = phi(q_i)^T s_i / (phi(q_i)^T z_i + eps)``, ``s`` the running sum of
      ``phi(k_j) v_j^T`` and ``z`` that of ``phi(k_j)``.
    - ``momentum`` (eq 12, 13, 14): the same with position j weighted by
      ``gamma (1 - beta^(i-j+1)) / (1 - beta)`` in ``s`` (not in ``z``); when not causal the weight is
      ``gamma (1 - beta^(N-j+1)) / (1 - beta)``.

    Raises:
        BadInput: an unknown kind or feature map, beta outside [0, 1), or a gamma, eps or scale that is
            not a positive finite number.

    >>> AttentionSpec().kind
    'momentum'
    >>> AttentionSpec(kind="momentum", beta=1.0)
    Traceback (most recent call last):
    mtbench.errors.BadInput: beta = 1.0 is outside [0, 1)
    """

    kind: Kind = "momentum"
    causal: bool = True
    """Position i sees positions j <= i only."""
    feature_map: Literal["elu+1"] = "elu+1"
    """``phi``, of linear and momentum attention."""
    eps: float = 1e-6
    """Added to the normaliser of linear and momentum attention."""
    beta: float = 0.9
    """The momentum. Softmax and linear attention have none: theirs reads 0, whatever was given."""
    gamma: float = 1.0
    """The step size. Softmax and linear attention have none: theirs reads 1, whatever was given."""
    scale: float | None = None
    """Softmax only; None is 1/sqrt(head_dim)."""

    def __post_init__(self) -> None:
        _one_of("attention", self.kind, ATTENTIONS)
        _one_of("feature map", self.feature_map, ("elu+1",))
        if not 0 <= self.beta < 1:
            raise BadInput(f"beta = {self.beta} is outside [0, 1)")
        for name in ("gamma", "eps", "scale"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise BadInput(f"{name} = {value} must be a positive finite number")
        if self.kind != "momentum":
            # One function, one spec: without momentum two specs that differ in beta are the same.
            object.__setattr__(self, "beta", 0.0)
            object.__setattr__(self, "gamma", 1.0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One problem to compute: an attention at a size, in a dtype, on a device.

    q is [batch, heads, seq_len, head_dim], k is [batch, kv_heads, kv_len, head_dim], v is
    [batch, kv_heads, kv_len, value_dim] and the output is [batch, heads, seq_len, value_dim].

    Raises:
        BadInput: a size below 1, more devices than positions, an unknown dtype, device or mode, a kv_len
            other than seq_len when causal, lengths that do not fit, or kv_heads that does not divide heads.

    >>> Case(seq_len=7).kv_len
    7
    """

    spec: AttentionSpec = field(default_factory=AttentionSpec)
    batch: int = 1
    heads: int = 8
    seq_len: int = 1024
    kv_len: int = None  # type: ignore[assignment]  # filled in by __post_init__, never None after it
    """Keys a sequence has; by default seq_len."""
    lengths: tuple[int, ...] | None = None
    """The keys of each batch entry that are real, 1..kv_len; the rest is padding, which adds nothing."""
    head_dim: int = 64
    value_dim: int = None  # type: ignore[assignment]
    """By default head_dim."""
    kv_heads: int = None  # type: ignore[assignment]
    """Heads of k and v, by default heads. Fewer are grouped heads."""
    dtype: Dtype = "float32"
    device: Device = "cpu"
    mode: Mode = "forward"
    seed: int = 0
    world_size: int = 1
    """Devices that the sequence is split over."""

    def __post_init__(self) -> None:
        for name, source in _FOLLOWS.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(self, source))
        for name in (
            "batch",
            "heads",
            "seq_len",
            "kv_len",
            "head_dim",
            "value_dim",
            "kv_heads",
            "world_size",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BadInput(f"{name} = {value} must be a whole number of at least 1")
        if self.seed < 0:
            raise BadInput(f"seed = {self.seed} must not be negative")
        _one_of("dtype", self.dtype, DTYPES)
        _one_of("device", self.device, DEVICES)
        _one_of("mode", self.mode, MODES)
        if self.spec.causal and self.kv_len != self.seq_len:
            raise BadInput(
                f"kv_len = {self.kv_len} differs from seq_len = {self.seq_len}, "
                "which only non-causal attention can have"
            )
        if self.world_size > self.seq_len:
            raise BadInput(
                f"world_size = {self.world_size} is more than seq_len = {self.seq_len}: "
                "a device has a position at least"
            )
        if self.heads % self.kv_heads:
            raise BadInput(f"kv_heads = {self.kv_heads} does not divide heads = {self.heads}")
        if self.lengths is not None:
            object.__setattr__(self, "lengths", tuple(int(n) for n in self.lengths))
            if len(self.lengths) != self.batch:
                raise BadInput(f"{len(self.lengths)} lengths were given for batch = {self.batch}")
            for length in self.lengths:
                if not 1 <= length <= self.kv_len:
                    raise BadInput(f"length {length} is outside 1..kv_len = {self.kv_len}")

    @property
    def softmax_scale(self) -> float:
        """The factor on softmax's scores (eq 1)."""
        return self.spec.scale if self.spec.scale is not None else self.head_dim**-0.5

    @property
    def key_lengths(self) -> tuple[int, ...]:
        """How many real keys each batch entry has: eq 14's N, a sequence at a time."""
        return self.lengths if self.lengths is not None else (self.kv_len,) * self.batch

    @property
    def id(self) -> str:
        """A readable key that no two different cases share."""
        spec = self.spec
        parts = [
            spec.kind,
            "causal" if spec.causal else "full",
            f"b{self.batch}",
            f"h{self.heads}" + (f".{self.kv_heads}" if self.kv_heads != self.heads else ""),
            f"n{self.seq_len}" + (f".{self.kv_len}" if self.kv_len != self.seq_len else ""),
            f"d{self.head_dim}" + (f".{self.value_dim}" if self.value_dim != self.head_dim else ""),
            self.dtype,
            self.device,
            self.mode,
        ]
        if spec.kind == "momentum":
            parts.append(f"beta{exact(spec.beta)}-gamma{exact(spec.gamma)}")
        if spec.kind == "softmax" and spec.scale is not None:
            parts.append(f"scale{exact(spec.scale)}")
        if spec.kind != "softmax" and spec.eps != AttentionSpec.eps:
            parts.append(f"eps{exact(spec.eps)}")
        if self.lengths is not None:
            parts.append("len" + "_".join(map(str, self.lengths)))
        parts.append(f"seed{self.seed}")
        if self.world_size > 1:
            parts.append(f"on{self.world_size}")
        return "-".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Case:
        """The case that `to_dict` wrote."""
        data = dict(data)
        spec = AttentionSpec(**data.pop("spec"))
        lengths = data.pop("lengths")
        return cls(spec=spec, lengths=None if lengths is None else tuple(lengths), **data)

    def replace(self, **changes: Any) -> Case:
        """A copy with some fields changed; kv_len, value_dim and kv_heads follow the field that they
        equal now, unless they are given.

        >>> Case(seq_len=7).replace(seq_len=9).kv_len
        9
        """
        for name, source in _FOLLOWS.items():
            if source in changes and getattr(self, name) == getattr(self, source):
                changes.setdefault(name, None)
        return replace(self, **changes)
