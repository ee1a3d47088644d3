"""What a run measures on: the clock, the limits and the memory of a processor or of a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any, Protocol

import leancore
from leancore.bench.limits import Probe, cpu_probes, meminfo, peak_dtype
from leancore.bench.timing import wall_clock


def kernels_run_on_cuda() -> bool:
    """Whether this build of leancore has CUDA kernels and finds a device for them."""
    return any(available for name, _, available in leancore.implementations() if name.startswith("cuda"))


class Device(Protocol):
    """One of :data:`DEVICES`."""

    name: str  # on the command line, and what candidates are asked about
    place: str  # where torch puts tensors
    slack: float  # by how much other libraries may miss an integer that they compute

    def require(self) -> None:
        """Get ready.

        Raises:
            ValueError: it cannot be used, and why.
        """

    def threads(self) -> int:
        """Of the host, that a candidate uses by default."""
        ...

    def clock(self, call: Callable[[], Any], repetitions: int) -> float:
        """Seconds of one call."""
        ...

    def limits(self, threads: int) -> list[Probe]:
        """All that is said of it above the results."""
        ...

    def probes(self, wanted: Collection[tuple[str, int]]) -> list[Probe]:
        """What the rooflines of these dtypes and numbers of threads need."""
        ...

    def binding(self, dtype: str) -> tuple[str, str]:
        """Names of the probes that bind a dtype: of arithmetic, and of memory."""
        ...

    def free_memory(self) -> int:
        """Bytes that a run may use; 4 GiB where the system does not tell."""
        ...

    def facts(self) -> dict[str, Any]:
        """What its numbers depend on beside the host; `device` is what it is called."""
        ...


class Cpu:
    name = place = "cpu"
    slack = 0.0

    def require(self) -> None:
        pass

    def threads(self) -> int:
        count: int = leancore.max_threads()
        return count

    def clock(self, call: Callable[[], Any], repetitions: int) -> float:
        return wall_clock(call, repetitions)

    def limits(self, threads: int) -> list[Probe]:
        both = ("float32", "float64")
        return [probe for n in sorted({1, threads}) for probe in cpu_probes(n, both, plain=True)]

    def probes(self, wanted: Collection[tuple[str, int]]) -> list[Probe]:
        kinds = tuple(sorted({peak_dtype(dtype) for dtype, _ in wanted}))
        return [probe for n in sorted({threads for _, threads in wanted}) for probe in cpu_probes(n, kinds)]

    def binding(self, dtype: str) -> tuple[str, str]:
        return f"multiply-add {peak_dtype(dtype)}", "copy, streaming"

    def free_memory(self) -> int:
        return meminfo("MemAvailable") or 2**32

    def facts(self) -> dict[str, Any]:
        return {}


class Cuda:
    """torch's current CUDA device: its tensors, its events, its library of matrix products."""

    name = place = "cuda"
    # cuDNN may convolve by transforms (Winograd's, Fourier's), whose roundings hang on all of a tile: that its results
    # round to the right integers still shows that it computes the layer.
    slack = 0.49
    side = 4096  # of the matrices whose product is timed

    def require(self) -> None:
        try:
            import torch
        except ImportError:
            raise ValueError("--device cuda needs torch, which is not installed") from None
        missing = []
        if not torch.cuda.is_available():
            why = "finds no CUDA device" if torch.version.cuda else "is one without CUDA"
            missing.append(f"torch {torch.__version__} {why}")
        if not kernels_run_on_cuda():
            missing.append(f"leancore: {leancore.cuda_status()}")
        if missing:
            raise ValueError(f"--device cuda: {'; '.join(missing)}")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 means float32
        torch.backends.cudnn.benchmark = True  # the best that the peers can do, chosen before anything is timed

    def threads(self) -> int:
        return 1  # the one that launches

    def clock(self, call: Callable[[], Any], repetitions: int) -> float:
        """Between two events around each call, which finds nothing of its arrays in the L2 cache.

        The host enqueues everything before it waits. A call that takes the host longer to launch than the device to
        overwrite its cache and to execute is measured by its launches.
        """
        import torch

        event: Any = torch.cuda.Event  # it has no type annotations
        events = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(repetitions)]
        for begin, end in events:
            self._overwritten.zero_()
            begin.record()
            call()
            end.record()
        events[-1][1].synchronize()
        return sum(float(begin.elapsed_time(end)) for begin, end in events) / 1e3 / repetitions

    def limits(self, threads: int) -> list[Probe]:
        return self.probes([(dtype, threads) for dtype in ("float32", "float16", "bfloat16")])

    def probes(self, wanted: Collection[tuple[str, int]]) -> list[Probe]:
        """By torch: a product of two large matrices, and a copy between buffers that no cache holds."""
        import torch

        def product(dtype: str, threads: int) -> Probe:
            a, b, out = self._matrices(dtype)
            return Probe(self.binding(dtype)[0], "flop", 2 * len(a) ** 3, threads, lambda: torch.mm(a, b, out=out))

        def copy(threads: int) -> Probe:
            source, target = self._rows
            return Probe("copy on the device", "byte", 2 * source.nbytes, threads, lambda: target.copy_(source))

        return [
            *(product(dtype, threads) for dtype, threads in sorted(set(wanted))),
            *(copy(threads) for threads in sorted({threads for _, threads in wanted})),
        ]

    def binding(self, dtype: str) -> tuple[str, str]:
        return f"matrix product {dtype}", "copy on the device"

    def free_memory(self) -> int:
        import torch

        return int(torch.cuda.mem_get_info()[0])

    def facts(self) -> dict[str, Any]:
        import torch

        properties = self._properties
        return {
            "device": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "device_memory_bytes": properties.total_memory,
            "L2_cache_bytes": self._cache,
            "L2_cache_overwritten_before_each_call": True,
            "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
            "torch_cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "leancore_cuda": leancore.cuda_status(),
        }

    @functools.cached_property
    def _properties(self) -> Any:
        import torch

        return torch.cuda.get_device_properties(torch.cuda.current_device())

    @property
    def _cache(self) -> int:
        return int(self._properties.L2_cache_size)

    @functools.cached_property
    def _overwritten(self) -> Any:
        import torch

        return torch.empty(max(2 * self._cache, 2**20), dtype=torch.uint8, device=self.place)

    @functools.cached_property
    def _rows(self) -> Any:
        """Each eight times the cache."""
        import torch

        return [torch.zeros(max(8 * self._cache, 2**20), dtype=torch.uint8, device=self.place) for _ in range(2)]

    def _matrices(self, dtype: str) -> Any:
        import torch

        return [torch.ones(self.side, self.side, dtype=getattr(torch, dtype), device=self.place) for _ in range(3)]


CPU = Cpu()
DEVICES: dict[str, Device] = {"cpu": CPU, "cuda": Cuda()}
