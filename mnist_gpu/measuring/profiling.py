"""What torch.profiler saw of a step: its operators, its events in order of time, and what watching it costs."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from mnist_gpu.device import synchronize


def profiled(step: Callable[[], object], count: int, device: torch.device) -> profile:
    """A profile of `count` calls of `step`, named "step 0", "step 1", ... among its events.

    As many calls go before, under the profiler, and are not kept: on a GPU the first ones hold its own start.
    """
    activities = [ProfilerActivity.CPU]
    if device.type in ("cuda", "xpu"):
        activities.append(getattr(ProfilerActivity, device.type.upper()))
    cycle = schedule(wait=0, warmup=1, active=1, repeat=1)
    with profile(activities=activities, schedule=cycle, acc_events=True) as watched:
        for _ in range(2):
            for i in range(count):
                with record_function(f"step {i}"):
                    step()
            synchronize(device)
            watched.step()
    return watched


def _own(name: str) -> bool:
    """Whether an event is the profiler's: a name given to a range of time, or its own buffers being requested."""
    return name.startswith(("step ", "ProfilerStep")) or name in ("Activity Buffer Request", "Buffer Flush")


def _on_cpu(event) -> bool:
    return "CPU" in str(event.device_type)


def operators(watched: profile) -> list:
    """The operators on the CPU, those that take longest first: `key`, `count`, `self_cpu_time_total` and
    `self_device_time_total` (µs; a GPU's kernels stand with the operator that launched them)."""
    found = [e for e in watched.key_averages() if _on_cpu(e) and not _own(e.key)]
    return sorted(found, key=lambda e: -(e.self_cpu_time_total + e.self_device_time_total))


def seconds_a_step(watched: profile, count: int) -> float:
    """How long one of the `count` steps took while it was watched."""
    steps = [e.time_range for e in watched.events() if e.name.startswith("step ") and _on_cpu(e)]
    return (max(t.end for t in steps) - min(t.start for t in steps)) / 1e6 / count


def timeline(watched: profile, i: int, device: torch.device) -> list[tuple[str, str, float, float, int]]:
    """The events from the beginning of step `i` on, for plots.timeline: row, name, begin and end in seconds, depth."""
    step = next(e for e in watched.events() if e.name == f"step {i}" and _on_cpu(e))

    def depth(event) -> int:  # under the step, which itself is not drawn
        parent = event.cpu_parent
        return 0 if parent is None or _own(parent.name) else 1 + depth(parent)

    events = []
    for e in watched.events():
        begin, end = e.time_range.start / 1e6, e.time_range.end / 1e6
        if end > begin >= step.time_range.start / 1e6 and not _own(e.name):
            row = device.type.upper() if not _on_cpu(e) else "CPU" if e.thread == step.thread else "CPU, backward"
            events.append((row, e.name.split("#")[0], begin, end, depth(e) if _on_cpu(e) else 0))
    return events
