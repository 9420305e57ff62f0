"""Kernels compiled for cards that are not here: Triton comes with all that it takes, and asks for no driver.

Run as a program, this file compiles: a process that interprets kernels cannot. Without PyTorch it takes a moment.
"""

import inspect
import json
import linecache
import subprocess
import sys

# Cards of several generations, and their targets for Triton: backend, architecture, threads of a warp.
TARGETS = {"T4": ("cuda", 75, 32), "A100": ("cuda", 80, 32), "H100": ("cuda", 90, 32), "MI300X": ("hip", "gfx942", 64)}
POINTERS = {"torch.float32": "*fp32", "torch.int32": "*i32", "torch.int64": "*i64", "torch.uint8": "*u8"}


def assembly(kernel, arguments: dict, cards=tuple(TARGETS)) -> dict[str, str]:
    """A kernel that uses only `triton` and `tl`: each card's PTX or assembly. Raises RuntimeError with the reason."""
    from mnist_gpu.faster.with_triton import environment  # here: the program needs no PyTorch

    values = {name: POINTERS[str(a.dtype)] if hasattr(a, "dtype") else a for name, a in arguments.items()}
    asked = json.dumps([source_of(kernel), values, [TARGETS[card] for card in cards]])
    options = {"env": environment(interpret=False), "capture_output": True, "encoding": "utf-8", "check": False}
    done = subprocess.run([sys.executable, __file__], input=asked, **options)
    if done.returncode:
        raise RuntimeError(done.stderr.rpartition("Error: ")[2].strip())
    return dict(zip(cards, json.loads(done.stdout), strict=True))


def source_of(kernel) -> str:
    """A kernel for another process, which cannot be given the kernel itself."""
    source = "\n" + inspect.getsource(kernel.fn)
    return "import triton\nimport triton.language as tl\n\n@triton.jit" + source[source.index("\ndef ") :]


def kernel_from(source: str):
    """The kernel that a source ends with. Triton reads the source again, so it is kept where Python keeps a cell's."""
    file = f"<kernel {hash(source)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    defined = {"__name__": file}
    exec(compile(source, file, "exec"), defined)
    return [*defined.values()][-1]


if __name__ == "__main__":
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source, values, targets = json.load(sys.stdin)
    kernel = kernel_from(source)
    fixed = {p.name: values[p.name] for p in kernel.params if p.is_constexpr or values[p.name] is None}
    types = {name: a if isinstance(a, str) else "i32" if isinstance(a, int) else "fp32" for name, a in values.items()}
    source = ASTSource(fn=kernel, signature=types | dict.fromkeys(fixed, "constexpr"), constexprs=fixed)
    found = (triton.compile(source, target=GPUTarget(*target)).asm for target in targets)
    print(json.dumps([asm["ptx"] if "ptx" in asm else asm["amdgcn"] for asm in found]))
