"""The engine `cuda`, where this machine can run it.

Importing it asks the driver and looks for the packages, and raises EngineError where something is missing; the GPU
itself is first touched by the first scan, in the process that scans.
"""

from scanner.engines import gpu
from scanner.engines.on_gpu import CudaEngine

gpu.check()
engine = CudaEngine()
