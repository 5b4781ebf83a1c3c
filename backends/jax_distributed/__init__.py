"""A sequence over the devices of a mesh, by `jax.shard_map`. Importing it does not import JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mtbench.backend import ALIKE, DeclaredBackend, Kernel, Limit, Requirement
from mtbench.spec import ATTENTIONS, Case

from ..jax import BACKEND as JAX
from ..jax import CAVEATS

__all__ = ["BACKEND", "JaxDistributed"]

SIMULATED = 8
"""Devices that a CPU is made to look like; they share its cores."""


class JaxDistributed(DeclaredBackend):
    """The chunked form of the backend `jax` between devices: linear and momentum attention gather states,
    softmax passes keys and values around."""

    environment: ClassVar[Mapping[str, str]] = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={SIMULATED}"
    }
    """What a process must have before JAX starts."""

    def build(self, case: Case, form: str) -> Kernel:
        """Compiles the program of all devices; on one device it is that of the backend `jax`.

        Raises:
            Ended: this machine has too few devices (``unavailable``).
        """
        if case.world_size == 1:
            return JAX.build(case, form)
        import jax
        import numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        from mtbench.frameworks.jax import kernel
        from mtbench.ranks.group import check_devices

        from .spread import AXIS, spread

        devices = jax.local_devices(backend=case.device)
        check_devices(case, len(devices))
        mesh = Mesh(np.array(devices[: case.world_size]), (AXIS,))
        lie = PartitionSpec(None, None, AXIS)
        function: Any = jax.shard_map(
            spread(case), mesh=mesh, in_specs=(lie,) * 3, out_specs=lie, check_vma=False
        )
        return kernel(function, case, config={"world_size": case.world_size}, place=NamedSharding(mesh, lie))


BACKEND = JaxDistributed(
    name="jax-distributed",
    framework="jax",
    form_table=dict.fromkeys(ATTENTIONS, ("chunked",)),
    spreads=True,
    requires=(Requirement(distribution="jax", minimum="0.8"),),
    limits=(
        *ALIKE,
        Limit(
            kind="never",
            what=f"more than {SIMULATED} devices of a CPU",
            reason="they are simulated, and as many are made",
            applies=lambda case, form: case.device == "cpu" and case.world_size > SIMULATED,
        ),
        Limit(
            kind="notimpl",
            what="seq_len that world_size does not divide",
            reason="jax.shard_map gives every device as many positions",
            applies=lambda case, form: case.seq_len % case.world_size > 0,
        ),
        Limit(
            kind="notimpl",
            what="linear and momentum attention in float16",
            reason="the scale of all keys, which keeps phi in its range, would have to be agreed on first",
            applies=lambda case, form: case.spec.kind != "softmax" and case.dtype == "float16",
        ),
    ),
    caveats=CAVEATS,
)
