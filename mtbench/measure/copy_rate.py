"""How fast a GPU copies: what the floor of a row is reckoned by, measured in the run that the row is in."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtbench.frameworks import Framework
from mtbench.inputs import NUMPY_DTYPES, Inputs
from mtbench.measure.clocks import Sampling, device_samples, warm_up
from mtbench.measure.cupti import CuptiError, recorder
from mtbench.spec import AttentionSpec, Case

__all__ = ["copy_bytes_per_s"]

ROWS, WIDTH = 1 << 21, 128
"""Of what is copied: half a GiB in bfloat16, ten times a large L2."""
SAMPLING = Sampling(least=20, least_s=0.0, limit_s=0.1, warmup_s=0.01)


def copy_bytes_per_s(framework: Framework) -> float | None:
    """The rate of a copy on the GPU by the device clock, reads and writes counted, in bytes/s. None where the
    device clock does not work, or memory for it is not to be had."""
    sizes: dict[str, Any] = {"heads": 1, "seq_len": ROWS, "kv_len": 1, "head_dim": WIDTH}
    case = Case(spec=AttentionSpec(kind="softmax", causal=False), dtype="bfloat16", device="cuda", **sizes)
    # A negation, as a plain copy may be done by another engine; of noise, as zeros may be compressed.
    kernel = framework.kernel(lambda q, k, v: -q, case)
    noise = np.random.default_rng(0).standard_normal((1024, WIDTH)).astype(NUMPY_DTYPES["bfloat16"])
    q = np.tile(noise, (ROWS // len(noise), 1))[None, None]
    try:
        recorder()
        kernel.load(Inputs(q=q, k=q[:, :, :1], v=q[:, :, :1]))
        warm_up(kernel, SAMPLING)
        device_ms, _, _ = device_samples(kernel, lambda: framework.flush_cache("cuda"), SAMPLING)
    except CuptiError:
        return None
    except Exception as error:
        if not framework.is_out_of_memory(error):
            raise
        return None
    finally:
        framework.release()
    return 2 * q.nbytes / device_ms.median * 1e3
