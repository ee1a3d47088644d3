"""What a call of leancore.jax costs: a compiled program with nothing else in it, against calling the kernel directly.

    python benchmarks/jax_call.py

Medians over rounds, of the time to finished results. On the tiny input nearly all is overhead; a compiled
multiplication shows what JAX itself takes. On the large one the callback's copies weigh.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import leancore
import leancore.jax as adapter


def microseconds(call: Callable[[], Any], repeats: int, rounds: int) -> float:
    jax.block_until_ready(call())
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(repeats):
            jax.block_until_ready(call())
        times.append((time.perf_counter() - began) / repeats)
    return statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="(default: %(default)s)")
    rounds = parser.parse_args().rounds

    tiny = jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1)), jnp.ones((1, 4))
    large = jnp.ones((64, 64, 64, 64)), jnp.ones((64, 64)), jnp.ones((64, 4))

    def report(name: str, forward: Callable[..., Any], gradient: Callable[..., Any] | None) -> None:
        small = microseconds(lambda: forward(*tiny), 50, rounds)
        both = "" if gradient is None else f"{microseconds(lambda: gradient(*tiny), 50, rounds):.1f}"
        big = microseconds(lambda: forward(*large), 2, rounds)
        print(f"{name:34}{small:12.1f}{both:>12}{big:12.0f}", flush=True)

    print(f"{'microseconds':34}{'tiny':>12}{'gradients':>12}{'64 MiB':>12}")
    scaled = jax.jit(lambda x, alpha, c: x * alpha[0, 0])
    report("a compiled multiplication", scaled, None)
    report("leancore.forward, not compiled", leancore.forward, None)
    routes = ["callback"]
    if adapter._registered():
        routes.insert(0, "interface")
    for route in routes:
        adapter._registered = (lambda: True) if route == "interface" else (lambda: False)  # type: ignore[assignment]
        jax.clear_caches()
        forward = jax.jit(lambda *args: adapter.lean_conv(*args))
        gradient = jax.jit(jax.grad(lambda *args: adapter.lean_conv(*args).sum(), (0, 1, 2)))
        report(f"lean_conv through the {route}", forward, gradient)


if __name__ == "__main__":
    main()
