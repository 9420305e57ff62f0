"""A GPU in a process of its own: what is found, and that no failure of its driver takes this process along."""

import os
import subprocess
import sys

import numpy
import pytest
from guarded import any_adapter

from mnist_gpu.webgpu import gpu as module
from mnist_gpu.webgpu.gpu import Call, Gpu, WebGPUError, adapters, the_gpu

ENDLESS = """
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) { loop { out[id.x] += 1u; if (out[id.x] == 0u) { out[0] += 1u; } } }
"""


def test_software_is_never_called_a_gpu(monkeypatch):
    monkeypatch.delenv(module.CHOICE, raising=False)
    found, reason = adapters()
    real = [a for a in found if a.kind != "software"]
    assert bool(real) != bool(reason)
    if not real:
        with pytest.raises(WebGPUError):
            Gpu()


def test_the_best_gpu_comes_first_and_each_once(monkeypatch):
    limits = dict.fromkeys(("max-buffer-size", "max-storage-buffer-binding-size"), 2**27)
    offered = [
        {"device": name, "vendor": "", "adapter_type": kind, "backend_type": backend} | limits
        for name, kind, backend in [
            ("llvmpipe (LLVM 15)", "CPU", "Vulkan"),
            ("UHD 620", "IntegratedGPU", "OpenGL"),
            ("Arc", "DiscreteGPU", "Vulkan"),
            ("UHD 620", "IntegratedGPU", "Vulkan"),
            ("Microsoft Basic Render Driver", "Unknown", "D3D12"),
        ]
    ]
    monkeypatch.setattr(module.Child, "ask", lambda self, method: offered)
    found, reason = adapters.__wrapped__()
    assert [(a.name, a.kind) for a in found][:2] == [("Arc", "discrete"), ("UHD 620", "integrated")] and not reason
    assert {a.kind for a in found[2:]} == {"software"} and found[1].number == 3


def test_the_reason_where_there_is_none(monkeypatch, tmp_path):
    (tmp_path / "child.py").write_text("import os; os.abort()", encoding="utf-8")  # a driver that crashes
    for where, name, value, part in (
        (module, "find_spec", lambda name: None, "pip install wgpu"),
        (module.Child, "ask", lambda self, method: [], "driver"),
        (module, "HERE", tmp_path, "driver ended"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            found, reason = adapters.__wrapped__()
        assert found == [] and part in reason


def test_a_crash_ends_in_one_error_and_the_next_use_starts_anew():
    name = any_adapter()
    first = the_gpu(name)
    first.child.process.kill()
    first.child.process.wait()
    with pytest.raises(WebGPUError, match="driver") as error:
        first.array(8)
    assert name in str(error.value)
    second = the_gpu(name)
    assert second is not first and (second.array(8).read() == 0).all()
    second.close()


def test_a_driver_that_hangs_is_ended(own_gpu):
    out, kernel = own_gpu.array(2**16), own_gpu.kernel(ENDLESS)
    own_gpu.child.patience = 1
    with pytest.raises(WebGPUError, match="1 seconds"):
        own_gpu.run([Call(kernel, (out,), (1024,))])
    assert own_gpu.child.process.poll() is not None


def test_an_interrupt_leaves_no_answer_behind_for_the_next_request(own_gpu, monkeypatch):
    def interrupted(file):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.pickle, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        own_gpu.array(8)
    monkeypatch.undo()
    with pytest.raises(WebGPUError):
        own_gpu.array(8)


def test_a_kernel_that_does_not_compile_names_what_is_wrong(gpu):
    with pytest.raises(WebGPUError, match="undefined_name"):
        gpu.kernel("@compute @workgroup_size(1) fn main() { let x = undefined_name; }")
    assert (gpu.array(4).read() == 0).all()  # and it goes on


def test_more_memory_than_is_allowed_is_refused_with_the_limit(gpu):
    limit = gpu.adapter.largest_buffer
    with pytest.raises(WebGPUError, match=f"{limit:,}"):
        gpu.array(numpy.broadcast_to(numpy.float32(0), (limit // 4 + 1,)))
    array = gpu.array(3)
    with pytest.raises(ValueError, match="12"):
        array.write(numpy.zeros(4, numpy.float32))


def test_bytes_come_back_whatever_their_number_and_type(gpu):
    for content in (numpy.arange(5, dtype=numpy.uint8), numpy.arange(3, dtype=numpy.int64), numpy.zeros((2, 3), "f")):
        found = gpu.array(content).read()
        assert found.dtype == content.dtype and (found == content).all() and found.shape == content.shape


def test_it_needs_neither_torch_nor_this_package_in_its_process():
    code = "import sys, runpy; runpy.run_path(sys.argv[1]); print(*sys.modules)"
    child = os.path.join(module.HERE, "child.py")
    loaded = subprocess.check_output([sys.executable, "-P", "-c", code, child], encoding="utf-8").split()
    assert "wgpu" in loaded and not {"torch", "mnist_gpu", "triton"} & set(loaded)
