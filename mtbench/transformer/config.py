"""What a model is: its sizes, its attention, its connection. Imports no framework."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mtbench.errors import BadInput, nearest
from mtbench.spec import AttentionSpec

__all__ = ["ATTENTION_KINDS", "CONNECTION_KINDS", "ModelConfig", "ModelSize", "Momenta"]

ATTENTION_KINDS: Mapping[str, str] = {
    "softmax": "softmax attention (eq 1)",
    "linear": "linear attention (eq 8)",
    "momentum": "momentum attention (eq 12, 13)",
    "momentum-released": "the released code's momentum attention: the weights of eq 14 under a causal mask",
    "linear-bare": "linear attention without normaliser, q and k scaled by N^-1/4: the released LRA code",
    "momentum-bare": "momentum attention in the same way (eq 12 to 14 without the division)",
}
"""By name. Where it is not causal ``momentum-released`` is ``momentum``: eq 14 for both."""
BARE = "-bare"
"""How the name of an attention without normaliser ends."""

CONNECTION_KINDS: Mapping[str, str] = {
    "none": "the plain residual connection",
    "momentum": "the momentum connection (eq 15)",
    "momentum-released": "the momentum connection as the released code has it, a velocity",
    "adaptive": "the adaptive momentum connection (eq 18)",
    "adaptive-released": "the adaptive momentum connection as the released code has it",
}
"""By name; `mtbench.transformer.connections` has them."""


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """How large a model is.

    Raises:
        BadInput: a size below 1, or a dropout outside [0, 1).
    """

    vocabulary: int
    """Symbols it reads and predicts."""
    max_len: int
    """Positions that have an encoding."""
    d_model: int = 256
    layers: int = 4
    heads: int = 8
    head_dim: int = 32
    feed_forward: int = 1024
    """Width of the two-layer network between attentions."""
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "dropout" and value < 1:
                raise BadInput(f"{name} = {value} must be at least 1")
        if self.d_model < 2:
            raise BadInput("d_model = 1 has no room for an embedding beside an encoding of the position")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"dropout = {self.dropout} is outside [0, 1)")


OPTIONS: Mapping[str, str] = {
    "connection": "connection-momentum",
    "step": "connection-step",
    "adaptive_step": "connection-step",
}
"""What sets a number of `Momenta`, where that has another name."""


@dataclass(frozen=True, kw_only=True)
class Momenta:
    """The momenta and step sizes.

    Raises:
        BadInput: a momentum outside [0, 1), or a step that is not a positive finite number.
    """

    beta: float = 0.9
    """The attention's momentum (eq 12)."""
    gamma: float = 1.0
    """The attention's step size (eq 12)."""
    connection: float = 0.9
    """The connection's momentum, where it is fixed (eq 15)."""
    step: float = 1.0
    """The fixed connection's step size, which the released code has and eq 15 has not."""
    adaptive_step: float = 1.0
    """The same of the adaptive connection."""

    def __post_init__(self) -> None:
        for name in ("beta", "connection"):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput(f"{OPTIONS.get(name, name)} = {getattr(self, name)} is outside [0, 1)")
        for name in ("gamma", "step", "adaptive_step"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise BadInput(f"{OPTIONS.get(name, name)} = {value} must be a positive finite number")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole model.

    Raises:
        BadInput: an unknown attention or connection; the line names the known ones.
    """

    size: ModelSize
    attention: str = "momentum"
    """One of `ATTENTION_KINDS`."""
    connection: str = "none"
    """One of `CONNECTION_KINDS`."""
    momenta: Momenta = field(default_factory=Momenta)

    def __post_init__(self) -> None:
        for what, value, known in (
            ("attention", self.attention, ATTENTION_KINDS),
            ("connection", self.connection, CONNECTION_KINDS),
        ):
            if value not in known:
                raise BadInput(f"unknown {what} {value!r}: {nearest(value, known)}")

    def spec(self, *, causal: bool) -> AttentionSpec:
        """What the model's attention computes, but for the weights that ``momentum-released`` adds, and the
        denominators that the bare ones take back.

        So any backend computes them: linear attention of values which are weighted before, and attention
        that is multiplied by its denominator after.

        >>> ModelConfig(size=ModelSize(vocabulary=2, max_len=8), attention="momentum-released").spec(
        ...     causal=True
        ... ).kind
        'linear'
        """
        if self.weighted(causal=causal):
            return AttentionSpec(kind="linear", causal=True)
        kind: Any = self.attention.removesuffix("-released").removesuffix(BARE)
        return AttentionSpec(kind=kind, causal=causal, beta=self.momenta.beta, gamma=self.momenta.gamma)

    def weighted(self, *, causal: bool) -> bool:
        """Whether values are weighted by eq 14 before the attention."""
        return self.attention == "momentum-released" and causal

    @property
    def bare(self) -> bool:
        """Whether its attention has no normaliser."""
        return self.attention.endswith(BARE)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """The configuration that `to_dict` wrote."""
        size, momenta = ModelSize(**data["size"]), Momenta(**data["momenta"])
        return cls(size=size, attention=data["attention"], connection=data["connection"], momenta=momenta)
