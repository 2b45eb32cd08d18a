"""The process of one contender: builds it in one setting after another, and times it when told to.

``benchmark.py`` starts it as ``benchmark_worker.py DEVICE THREADS CHECKOUT MODE CONTENDER`` and writes tasks to its
standard input, one per line: the name of a setting to build, or an empty line to run a step. Each answer is one line of
JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch
from cases import MODES, Measured

import knet_plugin

__all__ = ['main', 'measure_memory', 'measure_seconds']


def measure_seconds(measured: Measured, device: torch.device) -> float:
    """Seconds of one step."""
    wait = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    wait()
    begin = time.perf_counter()
    measured.step()
    wait()
    return time.perf_counter() - begin


def measure_memory(measured: Measured, device: torch.device) -> dict[str, float]:
    """MiB beyond those allocated before: ``peak`` of a step, and ``kept`` by the result of its forward pass."""
    result = dict(peak=max(allocations(measured.step, device)) / 2**20)
    if measured.forward is not None:
        kept: list[Any] = []
        result['kept'] = allocations(lambda: kept.append(measured.forward()), device)[-1] / 2**20  # type: ignore[misc]
    return result


def allocations(function: Callable[[], Any], device: torch.device) -> list[int]:
    """Bytes beyond those before: on a CPU after each allocation and release, on a GPU at the peak and at the end."""
    if device.type == 'cuda':
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return [torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    # torch below 2.4 has no nanoseconds; sorting keeps the order of events of the same microsecond.
    events.sort(key=lambda event: event.start_ns() if hasattr(event, 'start_ns') else event.start_us())
    held = [0]
    for event in events:
        held.append(held[-1] + event.nbytes())
    return held


def main(tasks: TextIO, answers: TextIO, device: torch.device, mode: str, contender: str) -> None:
    """Answer tasks until there are no more."""
    measured = Measured(lambda: None)
    for task in tasks:
        if setting := task.strip():
            measured = Measured(lambda: None)  # release the tensors of the last setting first
            measured = MODES[mode].settings[setting][contender](device)
            measured.step()
            with_memory = MODES[mode].memory or device.type == 'cuda'
            answer = measure_memory(measured, device) if with_memory else {}
        else:
            answer = dict(seconds=measure_seconds(measured, device))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
    name, threads, checkout, *arguments = sys.argv[1:]
    if not Path(knet_plugin.__file__).resolve().is_relative_to(Path(checkout).resolve()):
        sys.exit(f'error: imported knet_plugin from {knet_plugin.__file__} instead of {checkout}')
    torch.set_num_threads(int(threads))
    # Keep what packages print out of the answers.
    with os.fdopen(os.dup(1), 'w') as stdout:
        os.dup2(2, 1)
        main(sys.stdin, stdout, torch.device(name), *arguments)
