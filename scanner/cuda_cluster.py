"""A Dask cluster of one worker a GPU, on this machine; dask_cuda is imported here alone.

Unverified on hardware: no machine of ours has a GPU.
"""

from typing import Any

from data.errors import EngineError, UsageError
from scanner.engines import gpu

RESOURCE = "GPU"
"""What a worker that has a GPU declares, and what a task of the engine `cuda` takes one of."""
POOL = 0.3
"""Share of a GPU's memory that a worker's pool begins with. It grows."""


def options(workers: int, dashboard_port: int) -> dict[str, Any]:
    """What LocalCUDACluster is asked for. `workers`: 0 is one a GPU.

    One pool, RMM's, which CuPy draws from too, tracked so that its use can be told; no spilling, of which a matrix that
    stays resident would be the first to go; tcp, since workers have nothing to say to each other.
    """
    return {
        "n_workers": workers or None,
        "threads_per_worker": 1,
        "protocol": "tcp",
        "host": "127.0.0.1",
        "dashboard_address": f"127.0.0.1:{dashboard_port}",
        "memory_limit": 0,
        "device_memory_limit": 0,
        "enable_cudf_spill": False,
        "rmm_pool_size": POOL,
        "rmm_allocator_external_lib_list": "cupy",
        "rmm_track_allocations": True,
        "pre_import": ",".join(name for name in ("cupy", "cudf") if gpu.installed(name)),
        "resources": {RESOURCE: 1},
    }


def local_cuda_cluster(workers: int, dashboard_port: int) -> Any:
    """Start it. Raises EngineError, with the remedy, where there is no usable GPU or package."""
    gpu.check()
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise EngineError(f"--cluster cuda needs Dask-CUDA: {error}. Install it with: {gpu.INSTALL}") from error
    cards = len(gpu.probe().devices)
    if workers > cards:
        raise UsageError(f"workers must be at most {cards} on --cluster cuda, one a GPU; got {workers}")
    return LocalCUDACluster(**options(workers, dashboard_port))
