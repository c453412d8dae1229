"""The engine `cuda`, where this machine can run it.

Importing it asks the driver and looks for the packages, and raises EngineError where something is missing; the GPU
itself is first touched by the first scan, in the process that scans.
"""

from data.errors import EngineError
from scanner.engines import gpu
from scanner.engines.on_gpu import CudaEngine


def check() -> None:
    """Raise EngineError, with the remedy, where this machine cannot run the engine."""
    found = gpu.probe()
    if not found.usable:
        raise EngineError(f"engine 'cuda' needs a GPU: {found.reason}. Remedy: {found.remedy}, or use --engine auto")
    if missing := gpu.missing():
        raise EngineError(f"engine 'cuda' needs {', '.join(missing)}. Install them with: {gpu.INSTALL}")


check()
engine = CudaEngine()
