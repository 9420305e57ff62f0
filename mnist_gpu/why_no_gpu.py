"""Why PyTorch uses no GPU here, though there may be one, and what to do: the doctor asks.

A reason is two texts: what is wrong, and the remedy. For each maker of GPUs a function in `MAKERS` gives one, or None.
"""

import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from mnist_gpu.device import ask_driver, nvidia_smi

Reason = tuple[str, str]

# What a training in one process needs on a GPU: about 500 MiB for CUDA's own context and 100 for data and network.
GPU_BYTES_NEEDED = 700 * 2**20
PYTORCH = "https://pytorch.org/get-started/locally"
WHEELS = "https://download.pytorch.org/whl"
ROCM_CARDS = "https://rocm.docs.amd.com/projects/install-on-linux/en/latest/reference/system-requirements.html"
OF_WINDOWS = "In WSL the driver is the one of Windows: update it there, and install none inside WSL, which breaks it."
OTHERS = "Shut down other notebooks and programs that use this GPU (`nvidia-smi` lists them)."
AMDS_DEVICE = Path("/dev/kfd")


@dataclass(frozen=True)
class Build:
    """A build of PyTorch for NVIDIA's cards, from PyTorch's own index, and which compute capabilities it serves."""

    index: str
    packages: str
    first: tuple[int, int]
    last: tuple[int, int]

    @property
    def command(self) -> str:
        """pip keeps a build of the same version that is there, whatever its CUDA. So that has to go first."""
        install = f"python -m pip install {self.packages} --index-url {WHEELS}/{self.index}"
        return f"`python -m pip uninstall -y torch torchvision`, then `{install}`"

    @property
    def driver(self) -> int:
        return needed_driver(self.index[2:4])  # "cu130"


# The best first. PyTorch's table is RELEASE.md in its repository, section "CUDA support matrix". CUDA 13 knows no card
# below 7.5, and 2.14 is the last release for CUDA 12.6.
BUILDS = (
    Build("cu130", "torch torchvision", (7, 5), (99, 0)),
    Build("cu126", '"torch>=2.11,<2.15" "torchvision>=0.26,<0.30"', (5, 0), (9, 9)),
)
# The oldest driver for each major version of CUDA, on Linux and on Windows; minor versions make no difference (NVIDIA's
# CUDA Compatibility, section "Minor Version Compatibility", and the CUDA Toolkit's release notes).
DRIVERS = {"11": (450, 452), "12": (525, 528), "13": (580, 580)}

# What nvidia-smi, or PyTorch when it starts CUDA, says of a driver that is there and fails, and what to do about it.
FAILURES = (
    (
        "version mismatch|unsupported display driver",
        "The driver was updated while the old one went on running. Restart the computer.",
    ),
    (
        "not yet initialized",  # error 802
        "The GPUs of such a server (A100, H100, H200, ...) wait for NVIDIA's fabric manager. It has to be installed in "
        "the driver's version; `sudo systemctl enable --now nvidia-fabricmanager` starts it. A container or a virtual "
        "machine depends on its host for that.",
    ),
    (
        "CUDA unknown error",
        "Often the computer has slept in between. Restart it, or load the driver's module anew: "
        "`sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm`.",
    ),
    (
        "communicate with the NVIDIA driver",
        "The driver is installed, but not loaded, as after an update of the system's kernel. Restart the computer; if "
        "it goes on, install the driver again.",
    ),
    ("driver on your system is too old", f"Update the NVIDIA driver, or install a build for an older CUDA: {PYTORCH}"),
    ("", "Restart the computer; if it goes on, install the NVIDIA driver again."),
)


def why_no_gpu() -> Reason | None:
    """Why PyTorch reports no GPU although one is here, or this PyTorch is for one; None if there is no sign of any."""
    return next((reason for maker in MAKERS if (reason := maker())), None)


def nvidia() -> Reason | None:
    cards, wrong = nvidia_smi()
    if wrong:
        return f"An NVIDIA driver is installed, but nvidia-smi fails: {wrong}.", remedy(wrong)
    error = cuda_error()
    if not cards:
        nothing = re.match("$|Found no NVIDIA driver|No CUDA GPUs are available", error)
        return None if nothing else (f"PyTorch cannot start CUDA: {error}", remedy(error))
    name, driver, card = cards[0]["name"], cards[0]["driver_version"], capability(cards[0])
    hidden, cuda = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.version.cuda
    if cuda is None:
        built = "other GPUs" if torch.version.hip or torch.xpu._is_compiled() else "the CPU only"
        text = f"An NVIDIA GPU is here ({name}), but this PyTorch ({torch.__version__}) is built for {built}."
        return text, install(driver, card)
    if hidden is not None and not names_a_card(hidden, len(cards)):
        return (
            f"{len(cards)} NVIDIA GPU(s) are here ({name}); CUDA_VISIBLE_DEVICES={hidden!r} hides them.",
            "`unset CUDA_VISIBLE_DEVICES`, or set it to the numbers of the GPUs to use, such as 0.",
        )
    text = f"An NVIDIA GPU is here ({name}), with driver {driver}, but this PyTorch, which is built for CUDA {cuda},"
    if number(driver) < needed_driver(cuda):
        return f"{text} needs driver {needed_driver(cuda)} or newer.", for_an_old_driver(driver, card, cuda)
    return f"{text} cannot use it: {error}", remedy(error)


def cuda_error() -> str:
    """What PyTorch says when it cannot start CUDA; "" where it is not built for it.

    It is the text of PyTorch's warning at the first question for GPUs. The warning is given once, the error every time.
    """
    if torch.version.cuda is None:
        return ""
    try:
        torch.cuda.init()
    except Exception as failure:  # whatever it is, PyTorch has no GPU, and this says why
        return (str(failure).strip().splitlines() or [type(failure).__name__])[0]
    return "it does not say why"


def remedy(words: str) -> str:
    """What to do about a driver of which this is said."""
    if in_wsl():
        return f"`wsl --shutdown` in Windows, or restart the computer. {OF_WINDOWS}"
    return next(what for pattern, what in FAILURES if re.search(pattern, words))


def in_wsl() -> bool:
    """Whether this is Linux inside Windows: there the kernel's name is like 5.15.167.4-microsoft-standard-WSL2."""
    return "microsoft" in platform.release().lower()


def number(driver: str) -> int:
    """The major number of a driver, 470 of "470.182.03". One that is not known is taken for new enough."""
    found = re.match(r"\d+", driver)
    return int(found[0]) if found else sys.maxsize


def needed_driver(cuda: str) -> int:
    """The oldest driver (its major number) for a version of CUDA, such as "13.0"; 0 if that is not known."""
    return DRIVERS.get(cuda.split(".")[0], (0, 0))[os.name == "nt" or in_wsl()]


def capability(card: dict[str, str]) -> tuple[int, int] | None:
    """A card's compute capability, if its driver tells it."""
    found = re.fullmatch(r"(\d+)\.(\d+)", card.get("compute_cap", ""))
    return (int(found[1]), int(found[2])) if found else None


def best_build(driver: str, card: tuple[int, int] | None) -> Build | None:
    """The best build for a card of this compute capability (None: not known), if possible one for its driver."""
    builds = [build for build in BUILDS if card is None or build.first <= card <= build.last]
    return next((b for b in builds if b.driver <= number(driver)), builds[-1] if builds else None)


def install(driver: str, card: tuple[int, int] | None) -> str:
    """The commands that install a build for this card, and whether the driver has to be newer for it."""
    build = best_build(driver, card)
    if build is None:
        return "No PyTorch that this course runs on has code for such a card. Use the CPU, or a hosted notebook's GPU."
    return build.command if build.driver <= number(driver) else f"{newer_driver(build.driver)} Then {build.command}."


def newer_driver(needed: int) -> str:
    return f"Update the NVIDIA driver to {needed} or newer." + (f" {OF_WINDOWS}" if in_wsl() else "")


def for_an_old_driver(driver: str, card: tuple[int, int] | None, cuda: str) -> str:
    """A newer driver, or another build: a newer driver is of no use where this build has no code for the card."""
    other, needed = best_build(driver, card), needed_driver(cuda)
    if card and not has_code_for(card):
        return install(driver, card)
    if other is None or other.driver >= needed:
        return newer_driver(needed)
    if card:
        return f"{newer_driver(needed)} If that cannot be: {install(driver, card)}"
    return (
        f"{newer_driver(needed)} If that cannot be, or the card is older than the GTX 16 and RTX 20 series: "
        f"{install(driver, card)} For a card older than the GTX 750 no driver is new enough."
    )


def names_a_card(visible: str, cards: int) -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves a card visible: CUDA reads it up to the first entry that names none."""
    first = visible.split(",")[0].strip()
    return first.startswith(("GPU-", "MIG-")) or (first.isdecimal() and int(first) < cards)


def amd() -> Reason | None:
    cards, wrong = amd_smi()
    if torch.version.hip:
        text = f"This PyTorch is built for AMD GPUs (ROCm {torch.version.hip}), but finds none that it can use"
        groups = "Your user has to be allowed to use /dev/kfd and /dev/dri/render* (the groups render and video)."
        return f"{text}{f': {wrong}' if wrong else '.'}", f"ROCm has to serve the card: {ROCM_CARDS}. {groups}"
    if cards or AMDS_DEVICE.exists():
        name = cards[0] if cards else AMDS_DEVICE
        rocm = f"Install PyTorch's ROCm build of torch and torchvision: {PYTORCH}."
        return (
            f"An AMD GPU is here ({name}), but this PyTorch ({torch.__version__}) is not built for it.",
            f"{rocm} It runs on the cards that ROCm serves: {ROCM_CARDS}.",
        )
    if wrong:
        return f"AMD's programs are installed, but fail: {wrong}.", "`sudo modprobe amdgpu` loads the driver."
    return None


def amd_smi() -> tuple[list[str], str]:
    """The names of the AMD GPUs that the driver knows of, and what is wrong, as AMD's programs say it."""
    wrong = ""
    for command in (("amd-smi", "static", "--asic"), ("rocm-smi", "--showproductname")):
        answer, said = ask_driver(*command)
        if names := re.findall(r"(?:card series|market_name):\s*(.+)", answer, re.IGNORECASE):
            return names, ""
        wrong = wrong or said
    return [], wrong


def apple() -> Reason | None:
    if platform.system() == "Darwin" and platform.machine() == "x86_64":
        return (
            "This Mac, or this Python, is one for Intel processors. PyTorch has no GPU there, and 2.2 was its last "
            "release for them.",
            "On Apple silicon use a Python for arm64. On a Mac with an Intel processor use a hosted notebook.",
        )
    if torch.backends.mps.is_built() and not torch.backends.mps.is_available():
        return (
            "This PyTorch is built for Apple's GPU (MPS), but the GPU cannot be used.",
            "It needs macOS 14 or newer on an Apple-silicon Mac, and a Python that is not run through Rosetta.",
        )
    return None


def intel() -> Reason | None:
    if torch.xpu._is_compiled():
        return (
            "This PyTorch is built for Intel GPUs (XPU), but finds none that it can use.",
            "If an Intel GPU is here, install its driver and check that your user may use /dev/dri/render*.",
        )
    return None


MAKERS = (nvidia, amd, apple, intel)


def why_no_kernel(found: torch.device, failure: str) -> Reason:
    """PyTorch reports a GPU, but a kernel fails on it."""
    text = f"PyTorch reports a {found.type} GPU, but no kernel runs on it: {failure}. Training falls back to the CPU."
    if torch.version.hip:
        lend = "HSA_OVERRIDE_GFX_VERSION may lend it the code of a similar card: 10.3.0 for RDNA 2, 11.0.0 for RDNA 3."
        return text, f"ROCm may not serve this card; it serves these: {ROCM_CARDS}. {lend}"
    if found.type == "cuda":
        card = torch.cuda.get_device_capability()
        if not has_code_for(card):
            driver = next((c["driver_version"] for c in nvidia_smi()[0]), "")
            return (
                f"{torch.cuda.get_device_name()} has compute capability {card[0]}.{card[1]}, for which this PyTorch "
                f"({torch.__version__}) holds no code (it has {', '.join(torch.cuda.get_arch_list())}). Training falls "
                "back to the CPU.",
                install(driver, card),
            )
        try:
            free, total = torch.cuda.mem_get_info()
            memory = f"{free / 2**20:.0f} of {total / 2**20:.0f} MiB free"
        except RuntimeError:  # asking needs some memory too
            free, memory = 0 if "out of memory" in failure else GPU_BYTES_NEEDED, "too little to ask how much is free"
        if free < GPU_BYTES_NEEDED:
            return f"GPU memory is full: {memory}, no kernel runs ({failure}).", OTHERS
    return text, f"Restart the machine or container; then update the driver and PyTorch: {PYTORCH}"


def has_code_for(card: tuple[int, int]) -> bool:
    """Whether this build of PyTorch has code for cards of that compute capability."""
    return any(serves(arch, card) for arch in torch.cuda.get_arch_list())


def serves(arch: str, card: tuple[int, int]) -> bool:
    """Whether code for `arch` ("sm_86", "sm_90a", "compute_90") runs on a card of that compute capability.

    Machine code (sm) runs on newer cards of the same major version, PTX (compute) on all newer ones, and code for one
    architecture alone (a letter at the end) on no other (CUDA C++ Programming Guide, section "Compute Capability").
    """
    kind, digits = arch.split("_")
    digits = digits.rstrip("abcdefghijklmnopqrstuvwxyz")
    built = (int(digits[:-1]), int(digits[-1]))
    if not arch.endswith(digits):
        return built == card
    return built <= card if kind == "compute" else built[0] == card[0] and built[1] <= card[1]
