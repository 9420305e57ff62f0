"""The process that owns a GPU's driver, which can crash or hang, and takes no notebook along; see mnist_gpu.webgpu.gpu.

It imports no torch: a software driver and Triton crash each other. Requests, pickled (method, arguments), come from
standard input; every answer, (whether it worked, value or words), goes to what was standard output.
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
STORAGE = wgpu.BufferUsage.STORAGE
COPIED = wgpu.BufferUsage.COPY_DST | wgpu.BufferUsage.COPY_SRC


class Server:
    """What a request can ask for. Buffers and kernels are named by numbers."""

    def __init__(self):
        self.things, self.groups = {}, {}  # buffers and kernels; bind groups, by kernel and buffers

    def adapters(self) -> list[dict]:
        """Every way to every GPU: a GPU may be reached by Vulkan and by OpenGL, say."""
        return [
            {k: str(a.info[k]) for k in ("device", "vendor", "adapter_type", "backend_type")}
            | {name: a.limits[name] for name in LIMITS}
            for a in wgpu.gpu.enumerate_adapters_sync()
        ]

    def open(self, number: int) -> None:
        """Makes the adapter of this number the one to compute on."""
        adapter = wgpu.gpu.enumerate_adapters_sync()[number]
        self.device = adapter.request_device_sync(required_limits={name: adapter.limits[name] for name in LIMITS})
        self.fence = self.device.create_buffer(size=4, usage=STORAGE | COPIED)
        self.numbers = self.layout([{"type": "uniform", "has_dynamic_offset": True}])

    def layout(self, buffers: list[dict]):
        """Of the buffers in a group: one after another, which kinds of buffer there are."""
        entries = [{"binding": i, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": b} for i, b in enumerate(buffers)]
        return self.device.create_bind_group_layout(entries=entries)

    def group(self, layout, buffers: list[dict]):
        """Buffers, bound as a layout says."""
        entries = [{"binding": i, "resource": buffer} for i, buffer in enumerate(buffers)]
        return self.device.create_bind_group(layout=layout, entries=entries)

    def buffer(self, name: int, size: int) -> None:
        """New memory of `size` bytes, a multiple of 4, all 0."""
        self.things[name] = self.device.create_buffer(size=size, usage=STORAGE | COPIED)
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
        """Compiles a kernel: its buffers are group 0, in the order of their numbers; its numbers, if any, group 1."""
        found = re.findall(r"@group\(0\)\s*@binding\(\d+\)\s*var<storage,\s*(\w+)>", text)
        kinds = {"read": "read-only-storage", "read_write": "storage"}
        own = self.layout([{"type": kinds[access]} for access in found])
        layout = self.device.create_pipeline_layout(bind_group_layouts=[own, self.numbers])
        compute = {"module": self.device.create_shader_module(code=text), "entry_point": "main"}
        self.things[name] = self.device.create_compute_pipeline(layout=layout, compute=compute), own

    def submit(self, calls: list[tuple], each: int) -> None:
        """Has calls (kernel, buffers, workgroups, numbers) run in their order, and does not wait.

        `each` is the number of calls in a submission; 0: all in one.
        """
        numbers = numpy.zeros((len(calls), ALIGNED), numpy.uint8)
        for i, (*_, own) in enumerate(calls):
            numbers[i, : len(own)] = numpy.frombuffer(own, numpy.uint8)
        uniform = self.device.create_buffer_with_data(data=numbers, usage=wgpu.BufferUsage.UNIFORM)
        of_numbers = self.group(self.numbers, [{"buffer": uniform, "offset": 0, "size": ALIGNED}])
        each = min(each or MOST_DISPATCHES, MOST_DISPATCHES)
        for start in range(0, len(calls), each):
            encoder = self.device.create_command_encoder()
            work = encoder.begin_compute_pass()
            for i, (kernel, buffers, workgroups, _) in enumerate(calls[start : start + each], start):
                pipeline, layout = self.things[kernel]
                key = kernel, *buffers
                if key not in self.groups:  # kept, since an epoch binds the same ones thousands of times
                    self.groups[key] = self.group(layout, [{"buffer": self.things[b]} for b in buffers])
                work.set_pipeline(pipeline)
                work.set_bind_group(0, self.groups[key])
                work.set_bind_group(1, of_numbers, [i * ALIGNED])
                work.dispatch_workgroups(*workgroups)
            work.end()
            self.device.queue.submit([encoder.finish()])

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
