"""The lean convolution: a full 1x1 convolution plus a depthwise cross stencil, in one pass over memory.

    y = leancore.forward(x, alpha, c)

takes and returns arrays of NumPy, torch or JAX. ``leancore.torch`` has the differentiable operator and the modules.
Importing this package imports none of them.
"""

from leancore._core import cuda_status, implementations, max_threads, selected_implementation, thread_backend, version
from leancore.arrays import backward, backward_data, backward_weight, forward, shift

__version__ = version()

__all__ = [
    "backward",
    "backward_data",
    "backward_weight",
    "cuda_status",
    "forward",
    "implementations",
    "max_threads",
    "selected_implementation",
    "shift",
    "thread_backend",
    "version",
]
