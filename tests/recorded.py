"""CUDA graphs where there is no GPU: `torch.cuda`'s names for them, on the CPU.

A graph is the list of PyTorch's operations called while it was recorded; a replay does them again, into the same
memory. Unlike on a GPU, what is recorded is also done, and Triton's kernels are not seen. An operation that CUDA
refuses makes the end of the recording fail, too, and leaves its stream the current one, as in torch.cuda.graph.
"""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

REFUSED, ENDED = "operation not permitted when stream is capturing", "the capture was invalidated"


class Stream:
    used = False  # whether something ran in it that was not recorded

    def wait_stream(self, other):
        pass


class Graph:
    recording = False  # whether one is being recorded
    recorded_in, replays = [], 0  # the stream of each recording, and how many replays there were
    current = default = Stream()

    def __init__(self):
        self.operations, self.failed = [], False

    @torch.no_grad()
    def replay(self):
        Graph.replays += 1
        for operation, args, kwargs, result in self.operations:
            again = operation(*args, **kwargs)
            for kept, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if torch.is_tensor(kept) and kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


class Recording(TorchDispatchMode):
    """torch.cuda.graph."""

    def __init__(self, graph, stream=Graph.default):
        super().__init__()
        self.graph, self.stream = graph, stream

    def __enter__(self):
        self.before, Graph.current = Graph.current, self.stream
        Graph.recording = True
        Graph.recorded_in.append(self.stream)
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        Graph.recording = False
        if self.graph.failed:
            raise RuntimeError(ENDED)
        Graph.current = self.before

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten._local_scalar_dense.default:  # a number that nothing has computed yet
            self.graph.failed = True
            raise RuntimeError(REFUSED)
        result = operation(*args, **(kwargs or {}))
        if operation.namespace != "profiler" and not operation.is_view:
            self.graph.operations.append((operation, args, kwargs or {}, result))
        return result


@contextlib.contextmanager
def in_stream(stream):
    """torch.cuda.stream."""
    before, Graph.current = Graph.current, stream
    stream.used = True
    try:
        yield
    finally:
        Graph.current = before


def record_on_the_cpu(monkeypatch) -> type[Graph]:
    Graph.recorded_in, Graph.replays, Graph.current = [], 0, Graph.default
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Recording)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", in_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Graph.current)
    return Graph
