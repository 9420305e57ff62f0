"""Kernels compiled for cards that are not here, and what the compiler made of them.

Compiling needs neither the card nor its driver: Triton comes with what turns a kernel into a card's instructions, and
with what reads them again. A process that interprets kernels cannot compile them, so another one does.
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

import torch

from mnist_gpu.chapters.chapter_09.launches import Launch
from mnist_gpu.chapters.chapter_09.processes import kernel_from, process, source_of
from mnist_gpu.faster.with_triton import not_installed
from mnist_gpu.measuring.drawing import columns

# A card of each generation, and its target for Triton: backend, architecture, threads of a warp.
TARGETS = {
    "T4": ("cuda", 75, 32),
    "A100": ("cuda", 80, 32),
    "H100": ("cuda", 90, 32),
    "MI300X": ("hip", "gfx942", 64),
}
# What multiplies, the most powerful first: tensor cores for four warps, for one, and plain units.
MULTIPLIES = (r"wgmma\.mma_async[\w.]*", r"mma\.sync[\w.]*", r"v_mfma_\w+", r"fma\.rn\.f32x?2?", r"v_(?:pk_)?fmac?_f32",
              r"mul(?:\.rn)?\.f32", r"v_(?:pk_)?mul_f32", r"div\.rn\.f32")  # fmt: skip
TENSOR_CORES = ("wgmma", "mma", "v_mfma")  # AMD calls them matrix cores
TYPES = {torch.float32: "*fp32", torch.int64: "*i64", torch.int32: "*i32", torch.uint8: "*u8"}


class Compiled(NamedTuple):
    """What became of a kernel for one card."""

    instruction: str  # the one that multiplies, or "-" if none does
    registers: int  # of a thread
    shared_bytes: int  # of a program
    spilled_bytes: int  # of a thread: what had no room in the registers and lies in memory


def compile_for_cards(launches: Mapping[str, Launch], cards=tuple(TARGETS)) -> dict[str, dict[str, Compiled]]:
    """Every launch's kernel, for these arguments, compiled for every one of `cards`: by launch, by card.

    A kernel may use what it gets, `triton` and `tl`. Half a second each.

    Raises:
        ValueError: a card that is none of TARGETS.
        RuntimeError: Triton is not installed, or a kernel does not compile; with the reason.
    """
    if unknown := set(cards) - set(TARGETS):
        raise ValueError(f"no target is known for {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}")
    if reason := not_installed():
        raise RuntimeError(f"nothing can be compiled: {reason}")
    # An empty cache of its own: nothing is left behind, and nothing found that another version has compiled.
    with tempfile.TemporaryDirectory() as cache, process(interpret=False, TRITON_CACHE_DIR=cache) as call:
        return {
            name: {
                card: call(_compile, source_of(f.kernel), _described(f.arguments), f.options, TARGETS[card])
                for card in cards
            }
            for name, f in launches.items()
        }


def _described(arguments: Mapping) -> tuple[dict, dict, dict]:
    """Types, constants and known divisors of arguments, as Triton describes them to itself when a kernel is launched.

    A whole number that is 1 becomes a constant. Of one that 16 divides, and of an address, this is known: it allows
    loads of several elements at once.
    """
    types, constants, divisors = {}, {}, {}
    for i, (name, value) in enumerate(arguments.items()):
        if torch.is_tensor(value):
            types[name] = TYPES[value.dtype]
        elif isinstance(value, float):
            types[name] = "fp32"
        elif value is None or isinstance(value, bool) or name.isupper() or value == 1:
            types[name], constants[name] = "constexpr", value
        else:
            types[name] = "i32"
        if torch.is_tensor(value) or (types[name] == "i32" and value % 16 == 0):
            divisors[(i,)] = [["tt.divisibility", 16]]
    return types, constants, divisors


def _compile(source: str, described: tuple[dict, dict, dict], options: dict, target: tuple) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types, constants, divisors = described
    kernel = kernel_from(source)
    try:
        found = triton.compile(
            ASTSource(kernel, types, constants, divisors), target=GPUTarget(*target), options=options
        )
    except Exception as error:  # of many kinds, not all of which another process could be told
        raise RuntimeError(f"{kernel.fn.__name__} does not compile for {target[1]}: {error}") from None
    if "cubin" in found.asm:
        return _of_nvidia(found.asm["ptx"], found.asm["cubin"], found.metadata.shared, triton.knobs.nvidia)
    return _of_amd(found.asm["amdgcn"], found.metadata.shared)


def multiplies(assembly: str) -> str:
    """The most powerful instruction that multiplies floating-point numbers in PTX or AMD's assembly, or "-"."""
    found = (re.search(rf"(?<![\w.]){pattern}", assembly) for pattern in MULTIPLIES)
    return next((match[0] for match in found if match), "-")


def _of_nvidia(ptx: str, cubin: bytes, shared: int, tools) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tools.cuobjdump.path, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    numbers = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return Compiled(multiplies(ptx), numbers["REG"], shared, numbers["STACK"] + numbers["LOCAL"])


def _of_amd(assembly: str, shared: int) -> Compiled:
    registers, spilled = (
        int(re.search(rf"\.{name}:\s+(\d+)", assembly)[1]) for name in ("vgpr_count", "private_segment_fixed_size")
    )
    return Compiled(multiplies(assembly), registers, shared, spilled)


def short(instruction: str) -> str:
    """An instruction's name for a table: of a long one its beginning and its types."""
    words = instruction.split(".")
    return instruction if len(words) < 7 else ".".join(words[:2]) + "..." + ".".join(words[-3:])


def compiled_table(found: Mapping[str, Mapping[str, Compiled]]) -> None:
    """Prints what `compile_for_cards` found: a row for each kernel and card."""
    every = [(name, card, one) for name, cards in found.items() for card, one in cards.items()]
    rows = [
        (name, card, short(one.instruction), one.registers, f"{one.shared_bytes:,}", f"{one.spilled_bytes:,}")
        for name, card, one in every
    ]
    print(columns(["kernel", "card", "multiplies with", "registers", "shared, bytes", "spilled, bytes"], rows))
    print("registers and spilled: of a thread. shared: of a program. spilled: lies in memory, for want of registers.")
    print(f"Spilled: {', '.join(f'{name} on {card}' for name, card, one in every if one.spilled_bytes) or 'nothing'}.")
    for name, cards in found.items():
        where = [card for card, one in cards.items() if one.instruction.startswith(TENSOR_CORES)]
        print(f"{name}: multiplied by {'' if where else 'no '}tensor cores{' on ' * bool(where)}{', '.join(where)}.")
