"""Named sweeps, each with the reason for its shapes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mtbench.errors import BadInput, nearest
from mtbench.measure.clocks import Sampling
from mtbench.spec import ATTENTIONS, AttentionSpec, Case

__all__ = ["PRESETS", "Grid", "Workload", "workload"]

SUBQUADRATIC = ("chunked", "fused")
"""The forms whose time and memory are linear in the length, for linear and momentum attention."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The full product of its axes."""

    attention: tuple[str, ...] = ATTENTIONS
    form: tuple[str, ...] | None = None
    """None is every form a backend has."""
    without: tuple[str, ...] = ()
    """Forms that are left out, where none was asked for by name."""
    causal: tuple[bool, ...] = (True,)
    beta: tuple[float, ...] = (0.9,)
    gamma: tuple[float, ...] = (1.0,)
    seq_len: tuple[int, ...] = (256, 1024)
    kv_len: tuple[int | None, ...] = (None,)
    batch: tuple[int, ...] = (1,)
    heads: tuple[int, ...] = (8,)
    kv_heads: tuple[int | None, ...] = (None,)
    head_dim: tuple[int, ...] = (64,)
    value_dim: tuple[int | None, ...] = (None,)
    lengths: tuple[int, ...] | None = None
    """Real keys of each batch entry."""
    dtype: tuple[str, ...] = ("float32",)
    device: tuple[str, ...] = ("cpu",)
    mode: tuple[str, ...] = ("forward",)
    world_size: tuple[int, ...] = (1,)
    """Devices that each sequence is split over."""
    seed: int = 0
    interpreted: bool = True
    """Whether a backend whose kernels the device only interprets has rows of it: they have errors and no
    times, and take long."""

    def cases(self) -> Iterator[Case]:
        """Every case, the attention outermost within a size so that its rows stand together.

        Raises:
            BadInput: a combination that makes no case.
        """
        axes: tuple[tuple[Any, ...], ...] = (
            *(self.device, self.dtype, self.mode, self.causal, self.batch, self.heads, self.kv_heads),
            *(self.head_dim, self.value_dim, self.seq_len, self.kv_len, self.world_size),
        )
        for point in itertools.product(*axes):
            device, dtype, mode, causal, batch, heads, kv_heads, head_dim, value_dim, n, m, world_size = point
            for kind, beta, gamma in itertools.product(self.attention, self.beta, self.gamma):
                yield Case(
                    spec=AttentionSpec(kind=kind, causal=causal, beta=beta, gamma=gamma),  # type: ignore[arg-type]
                    batch=batch,
                    heads=heads,
                    kv_heads=kv_heads,
                    seq_len=n,
                    kv_len=m,
                    lengths=self.lengths,
                    head_dim=head_dim,
                    value_dim=value_dim,
                    dtype=dtype,
                    device=device,
                    mode=mode,
                    seed=self.seed,
                    world_size=world_size,
                )


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Grids measured one after another, and how long each row is sampled."""

    name: str
    why: str
    grids: tuple[Grid, ...]
    sampling: Sampling = field(default_factory=Sampling)
    timeout_s: float = 120.0
    """The most that one row may take, building included."""
    backends: tuple[str, ...] | None = None
    """Whose rows they are, where no others are asked for; None is mtbench's own without its peers."""
    named_forms: tuple[str, ...] = ()
    """Forms that were asked for by name: each has a row, also where a backend lacks it (it will say so). A
    preset's own grids name the forms of all backends at once, and each backend has rows of those it has."""

    def override(self, **axes: object) -> Workload:
        """The same with some axes replaced in every grid; None leaves an axis as it is."""
        given: dict[str, Any] = {name: value for name, value in axes.items() if value is not None}
        grids = tuple(replace(grid, **given) for grid in self.grids)
        return replace(self, grids=grids, named_forms=given.get("form", self.named_forms))

    def to_dict(self) -> dict[str, Any]:
        """For run.json, so that a run can be gone on with."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Workload:
        """The inverse of `to_dict`, from JSON."""
        grids = []
        for grid in data["grids"]:
            axes: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in grid.items()}
            grids.append(Grid(**axes))
        backends = data.get("backends")
        return cls(
            **data
            | {
                "grids": tuple(grids),
                "sampling": Sampling(**data["sampling"]),
                "backends": None if backends is None else tuple(backends),
                "named_forms": tuple(data.get("named_forms", ())),
            }
        )


FAST_FORMS: dict[str, Any] = {"form": ("chunked", "fused", "sdpa", "flex", "xla", "cudnn")}
"""The forms a user would choose among: no N x N array of ours, no loop over tokens."""
FOUR_HEADS: dict[str, Any] = {"heads": (4,)}
ON_A_CARD: dict[str, Any] = {"device": ("cuda",), "dtype": ("bfloat16",), "heads": (16,)}

SOFTMAX_PEERS: dict[str, Any] = {
    "attention": ("softmax",),
    "form": ("fused", "flash", "efficient", "cudnn", "flash-2"),
}
LINEAR_PEERS: dict[str, Any] = {
    "attention": ("linear", "momentum"),
    "form": ("fused", "chunked", "normalised", "bare", "two-scans", "decayed"),
}
BOTH_MODES = ("forward", "forward_backward")

FLAGS = Workload(
    name="",
    why="the axes named on the command line",
    grids=(Grid(),),
)
"""What `mtbench run` sweeps without a preset."""

PRESETS = {
    preset.name: preset
    for preset in (
        Workload(
            name="quick",
            why=(
                "a first look in under two minutes on two cores: every backend and form at 64 tokens, at 512 "
                "all but what goes token by token or is only interpreted"
            ),
            grids=(
                Grid(**FOUR_HEADS, seq_len=(64,)),
                Grid(**FOUR_HEADS, seq_len=(512,), without=("recurrent",), interpreted=False),
            ),
            sampling=Sampling(least=10, limit_s=0.3, warmup_s=0.02),
        ),
        Workload(
            name="default",
            why=(
                "each axis around one base point (batch 1, 4 heads of 64, 256 tokens), with the backward "
                "along seq_len: a full product would ask for hours and show little more; kernels that are "
                "only interpreted are judged at 64 and 256 tokens"
            ),
            grids=(
                Grid(**FOUR_HEADS, seq_len=(64, 256), mode=BOTH_MODES),
                Grid(**FOUR_HEADS, seq_len=(1024,), mode=BOTH_MODES, interpreted=False),
                Grid(**FOUR_HEADS, seq_len=(256,), batch=(4,), interpreted=False),
                Grid(**FOUR_HEADS, seq_len=(256,), head_dim=(32, 128), interpreted=False),
            ),
            # Under ten minutes on two cores: a call of over a tenth of a second has 8 samples, and says so.
            sampling=Sampling(limit_s=0.3, warmup_s=0.05, slow_s=0.1, least_slow=8),
        ),
        Workload(
            name="gpu",
            why=(
                "language-model shapes in bfloat16, every form at 1,024 tokens and the fast ones to 4,096; "
                "one long sequence, where the chip must be filled from a single batch entry; head_dim 128; "
                "and forward with backward"
            ),
            grids=(
                Grid(**ON_A_CARD, batch=(8,), seq_len=(1024,)),
                Grid(**ON_A_CARD, **FAST_FORMS, batch=(8,), seq_len=(512, 1024, 2048, 4096)),
                Grid(**ON_A_CARD, **FAST_FORMS, seq_len=(16384,)),
                Grid(**ON_A_CARD, **FAST_FORMS, batch=(8,), seq_len=(4096,), head_dim=(128,)),
                Grid(**ON_A_CARD, **FAST_FORMS, batch=(8,), seq_len=(4096,), mode=("forward_backward",)),
            ),
            sampling=Sampling(least_s=0.1, limit_s=0.5),
        ),
        Workload(
            name="peers",
            why=(
                "the project's GPU kernels beside what others reach, bfloat16 and causal, at six shapes "
                "from a small batch of short sequences to one of 131,072 tokens; softmax where it ends"
            ),
            grids=tuple(
                Grid(**ON_A_CARD, **forms, batch=(batch,), seq_len=(n,), head_dim=(d,), mode=modes)
                for batch, n, d, modes, compared in (
                    (8, 1024, 64, BOTH_MODES, (SOFTMAX_PEERS, LINEAR_PEERS)),
                    (8, 4096, 64, BOTH_MODES, (SOFTMAX_PEERS, LINEAR_PEERS)),
                    (1, 16384, 64, BOTH_MODES, (SOFTMAX_PEERS, LINEAR_PEERS)),
                    (8, 4096, 128, BOTH_MODES, (SOFTMAX_PEERS, LINEAR_PEERS)),
                    (1, 131072, 64, BOTH_MODES, (LINEAR_PEERS,)),
                    (1, 65536, 128, ("forward",), (LINEAR_PEERS,)),
                )
                for forms in compared
            ),
            sampling=Sampling(least_s=0.1, limit_s=0.5),
            backends=("triton", "jax-pallas", "jax", "sdpa", "fla", "flash-attn"),
        ),
        Workload(
            name="long",
            why=(
                "where linear time pays: to 262,144 tokens for the linear-time forms, and softmax without "
                "its N x N array beside them for as long as that is bearable"
            ),
            grids=(
                Grid(
                    attention=("softmax",),
                    **FAST_FORMS,
                    **FOUR_HEADS,
                    seq_len=(2048, 8192, 32768),
                ),
                Grid(
                    attention=("linear", "momentum"),
                    form=SUBQUADRATIC,
                    **FOUR_HEADS,
                    seq_len=(2048, 8192, 32768, 131072, 262144),
                ),
            ),
            sampling=Sampling(limit_s=2.0),
            timeout_s=300.0,
        ),
    )
}


def workload(preset: str | None) -> Workload:
    """A preset by name, or the plain product of the axes where none is named.

    Raises:
        BadInput: no preset of that name.
    """
    if preset is None:
        return FLAGS
    if preset not in PRESETS:
        raise BadInput(f"unknown preset {preset!r}: {nearest(preset, PRESETS)}")
    return PRESETS[preset]
