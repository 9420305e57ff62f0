"""The process that owns a GPU's driver, started by mnist_gpu.webgpu.gpu. It imports numpy and wgpu, and not torch.

A driver is foreign code that can crash or hang. Here it takes no notebook with it. A software driver and Triton even
crash each other in one process: both bring LLVM. Requests, pickled tuples (method, arguments), come from standard
input; every answer, (whether it worked, value or words), goes to what was standard output.
"""

import os
import pickle
import re
import signal
import sys

import numpy
import wgpu

# Windows ends a piece of work that keeps the GPU for two seconds, so no submission has more dispatches than this.
MOST_DISPATCHES = 10_000
ALIGNED = 256  # bytes: where the numbers of a dispatch may begin in their buffer (a limit of WebGPU)
LIMITS = ("max-buffer-size", "max-storage-buffer-binding-size")
STORAGE, UNIFORM = wgpu.BufferUsage.STORAGE, wgpu.BufferUsage.UNIFORM
COPIED = wgpu.BufferUsage.COPY_DST | wgpu.BufferUsage.COPY_SRC


class Server:
    """What a request can ask for. Buffers and kernels are named by numbers."""

    def __init__(self):
        self.things = {}
        self.groups = {}  # bind groups, by kernel and buffers

    def adapters(self) -> list[dict]:
        """Every way to every GPU: a GPU may be reached by Vulkan and by OpenGL, say."""
        return [
            {k: str(a.info[k]) for k in ("device", "vendor", "adapter_type", "backend_type")}
            | {name: a.limits[name] for name in LIMITS}
            for a in wgpu.gpu.enumerate_adapters_sync()
        ]

    def open(self, number: int) -> bool:
        """Makes the adapter of this number the one to compute on; returns whether it can time its own work."""
        adapter = wgpu.gpu.enumerate_adapters_sync()[number]
        timed = "timestamp-query" in adapter.features
        self.device = adapter.request_device_sync(
            required_features=["timestamp-query"] if timed else [],
            required_limits={name: adapter.limits[name] for name in LIMITS},
        )
        self.fence = self.device.create_buffer(size=4, usage=STORAGE | COPIED)
        self.stamps = self.device.create_query_set(type="timestamp", count=2) if timed else None
        return timed

    def buffer(self, name: int, size: int, content: bytes | None = None) -> None:
        """New memory of `size` bytes, a multiple of 4: zeros, or `content`."""
        self.things[name] = self.device.create_buffer(size=size, usage=STORAGE | COPIED)
        if content is not None:
            self.write(name, content)
        self.wait()  # so that memory that has run out is an error of this request

    def write(self, name: int, content: bytes) -> None:
        self.device.queue.write_buffer(self.things[name], 0, content)

    def read(self, name: int) -> bytes:
        """Waits for all work, and copies a buffer back."""
        return bytes(self.device.queue.read_buffer(self.things[name]))

    def release(self, name: int) -> None:
        self.groups = {key: group for key, group in self.groups.items() if name not in key}
        self.things.pop(name).destroy()

    def kernel(self, name: int, text: str) -> None:
        """Compiles a kernel: its buffers are group 0, its numbers, if it has any, a uniform in group 1."""
        found = re.findall(r"@group\(0\)\s*@binding\((\d+)\)\s*var<storage,\s*(\w+)>", text)
        kinds = {"read": "read-only-storage", "read_write": "storage"}
        entries = [
            {"binding": int(at), "visibility": wgpu.ShaderStage.COMPUTE, "buffer": {"type": kinds[access]}}
            for at, access in found
        ]
        layouts = [self.device.create_bind_group_layout(entries=entries)]
        if "@group(1)" in text:
            numbers = {"type": "uniform", "has_dynamic_offset": True}
            entry = {"binding": 0, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": numbers}
            layouts.append(self.device.create_bind_group_layout(entries=[entry]))
        layout = self.device.create_pipeline_layout(bind_group_layouts=layouts)
        module = self.device.create_shader_module(code=text)
        pipeline = self.device.create_compute_pipeline(layout=layout, compute={"module": module, "entry_point": "main"})
        self.things[name] = pipeline, layouts

    def group(self, layout, buffers: list, key: tuple):
        """The buffers of a call, bound; kept, since an epoch binds the same ones thousands of times."""
        if key not in self.groups:
            entries = [{"binding": i, "resource": resource} for i, resource in enumerate(buffers)]
            self.groups[key] = self.device.create_bind_group(layout=layout, entries=entries)
        return self.groups[key]

    def submit(self, calls: list[tuple], each: int, timed: bool = False) -> None:
        """Has calls (kernel, buffers, workgroups, numbers) run in their order, and does not wait.

        `each` is the number of calls in a submission; 0: all in one. `timed` notes the times of the last submission.
        """
        numbers = numpy.zeros((len(calls), ALIGNED), numpy.uint8)
        for i, (*_, own) in enumerate(calls):
            numbers[i, : len(own)] = numpy.frombuffer(own, numpy.uint8)
        uniform = self.device.create_buffer_with_data(data=numbers, usage=UNIFORM)
        each = min(each or MOST_DISPATCHES, MOST_DISPATCHES)
        for start in range(0, len(calls), each):
            encoder = self.device.create_command_encoder()
            stamps = {"query_set": self.stamps, "beginning_of_pass_write_index": 0, "end_of_pass_write_index": 1}
            work = encoder.begin_compute_pass(timestamp_writes=stamps if timed else None)
            bound = {}
            for i, (kernel, buffers, workgroups, _) in enumerate(calls[start : start + each], start):
                pipeline, layouts = self.things[kernel]
                work.set_pipeline(pipeline)
                storage = [{"buffer": self.things[b]} for b in buffers]
                work.set_bind_group(0, self.group(layouts[0], storage, (kernel, *buffers)))
                if len(layouts) > 1:
                    if kernel not in bound:
                        entry = {"binding": 0, "resource": {"buffer": uniform, "offset": 0, "size": ALIGNED}}
                        bound[kernel] = self.device.create_bind_group(layout=layouts[1], entries=[entry])
                    work.set_bind_group(1, bound[kernel], [i * ALIGNED])
                work.dispatch_workgroups(*workgroups)
            work.end()
            self.device.queue.submit([encoder.finish()])

    def seconds(self) -> float:
        """Waits; the seconds that the last timed submission took, from the times that the device noted (in ns)."""
        resolved = wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC
        out = self.device.create_buffer(size=16, usage=resolved)
        encoder = self.device.create_command_encoder()
        encoder.resolve_query_set(self.stamps, 0, 2, out, 0)
        self.device.queue.submit([encoder.finish()])
        begin, end = numpy.frombuffer(self.device.queue.read_buffer(out), numpy.uint64)
        return float(end - begin) / 1e9

    def wait(self) -> None:
        """Reading waits for all work before it. (wgpu 0.32's on_submitted_work_done_sync raises a TypeError.)"""
        self.device.queue.read_buffer(self.fence)


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a driver that prints must not write between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks; it ends this one
    server = Server()
    while True:
        try:
            method, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = True, getattr(server, method)(*arguments)
        except Exception as error:
            answer = False, f"{type(error).__name__}: {error}"
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
