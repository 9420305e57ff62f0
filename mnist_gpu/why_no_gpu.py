"""Why PyTorch uses no GPU here, though there may be one, and what to do: the doctor asks.

A reason is two texts: what is wrong, and the remedy. The functions in `MAKERS`, by maker, give one or None.
"""

import os
import re
from pathlib import Path

import torch

from mnist_gpu.device import nvidia_smi

Reason = tuple[str, str]

PYTORCH = "https://pytorch.org/get-started/locally"
WHEELS = "https://download.pytorch.org/whl"
ROCM_CARDS = "https://rocm.docs.amd.com/projects/install-on-linux/en/latest/reference/system-requirements.html"
OTHERS = "Shut down other notebooks and programs that use this GPU (`nvidia-smi` lists them)."
RESTART = "Restart the computer (in WSL: `wsl --shutdown` in Windows)"
AMDS_DEVICE = Path("/dev/kfd")
DRIVERS = {"12": 525, "13": 580}  # the oldest one for each version of CUDA (NVIDIA's CUDA Compatibility)

# What nvidia-smi, or PyTorch when it starts CUDA, says of a driver that is there and fails, and what to do about it.
FAILURES = (
    (
        "not yet initialized",  # error 802
        "Such a server (A100, H100, ...) needs NVIDIA's fabric manager, in the driver's version: "
        "`sudo systemctl enable --now nvidia-fabricmanager`. For a container or a virtual machine the host runs it.",
    ),
    (
        "CUDA unknown error",
        f"The computer may have slept. {RESTART}, or load the driver's module anew: "
        "`sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm`.",
    ),
    # A driver that was updated while it was running, or that is not loaded after an update of the system's kernel.
    ("", f"{RESTART}; if it goes on, install the newest NVIDIA driver."),
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
    driver, cuda, hidden = cards[0]["driver_version"], torch.version.cuda, os.environ.get("CUDA_VISIBLE_DEVICES")
    card = tuple(map(int, re.findall(r"\d+", cards[0]["compute_cap"])))
    here = f"{len(cards)} NVIDIA GPU(s) are here ({cards[0]['name']}, driver {driver})"
    if cuda is None:
        built = "other GPUs" if torch.version.hip or torch.version.xpu else "the CPU only"
        return f"{here}, but this PyTorch ({torch.__version__}) is built for {built}.", install(driver, card)
    if hidden is not None and "No CUDA GPUs" in error:
        unset = "`unset CUDA_VISIBLE_DEVICES`, or set it to the numbers of the GPUs to use, such as 0."
        return f"{here}, but CUDA_VISIBLE_DEVICES={hidden!r} hides them.", unset
    text, needed = f"{here}, but this PyTorch, which is built for CUDA {cuda}", DRIVERS.get(cuda.split(".")[0], 0)
    if number(driver) < needed:
        update = f"Or update the driver of a GTX 16, an RTX 20 or a newer card to {needed}, and keep this PyTorch."
        return f"{text}, needs driver {needed} or newer.", f"{install(driver, card)} {update}"
    return f"{text}, cannot use it: {error}", remedy(error)


def cuda_error() -> str:
    """What PyTorch says, in one line, when it cannot start CUDA; "" where it is not built for it."""
    if torch.version.cuda is None:
        return ""
    try:
        torch.cuda.init()
    except Exception as failure:  # whatever it is, PyTorch has no GPU, and this says why
        return (str(failure).strip().splitlines() or [type(failure).__name__])[0]
    return "it does not say why"


def remedy(words: str) -> str:
    """What to do about a driver of which this is said."""
    return next(what for pattern, what in FAILURES if re.search(pattern, words))


def number(driver: str) -> int:
    """The major number of a driver, 470 of "470.182.03". One that is not known is taken for new enough."""
    found = re.match(r"\d+", driver)
    return int(found[0]) if found else 999


def install(driver: str, card: tuple[int, ...]) -> str:
    """How to install the build for an NVIDIA card of this compute capability.

    Builds for CUDA 13 have no code below 7.5, those for CUDA 12.6 none from 10.0 on, and these end with torch 2.14
    (PyTorch's RELEASE.md). pip would keep a build of the same version, so that one has to go first.
    """
    newest = card >= ((7, 5) if number(driver) >= DRIVERS["13"] else (10, 0))
    packages = "torch torchvision" if newest else '"torch>=2.11,<2.15" "torchvision>=0.26,<0.30"'
    index, needed = ("cu130", DRIVERS["13"]) if newest else ("cu126", DRIVERS["12"])
    update = f"Update the NVIDIA driver to {needed} or newer (in WSL: that of Windows; install none inside WSL). Then "
    uninstall = "`python -m pip uninstall -y torch torchvision`"
    commands = f"{uninstall}, then `python -m pip install {packages} --index-url {WHEELS}/{index}`."
    return commands if number(driver) >= needed else update + commands


def amd() -> Reason | None:
    if torch.version.hip:
        groups = "Your user has to be allowed to use /dev/kfd and /dev/dri/render* (the groups render and video)."
        text = f"This PyTorch is built for AMD GPUs (ROCm {torch.version.hip}), but finds none that it can use."
        return text, f"ROCm has to serve the card: {ROCM_CARDS}. {groups}"
    rocm = f"Install PyTorch's ROCm build of torch and torchvision: {PYTORCH}. It runs on these cards: {ROCM_CARDS}."
    text = f"An AMD GPU is here ({AMDS_DEVICE}), but this PyTorch ({torch.__version__}) is not built for it."
    return (text, rocm) if AMDS_DEVICE.exists() else None


def apple_or_intel() -> Reason | None:
    mac = "It needs macOS 14 or newer on an Apple-silicon Mac, and a Python that is not run through Rosetta."
    if torch.backends.mps.is_built():
        return "This PyTorch is built for Apple's GPU (MPS), but the GPU cannot be used.", mac
    driver = "If an Intel GPU is here, install its driver and check that your user may use /dev/dri/render*."
    text = "This PyTorch is built for Intel GPUs (XPU), but finds none that it can use."
    return (text, driver) if torch.version.xpu else None


MAKERS = (nvidia, amd, apple_or_intel)


def why_no_kernel(found: torch.device, failure: str) -> Reason:
    """PyTorch reports a GPU, but a kernel fails on it."""
    text = f"PyTorch reports a {found.type} GPU, but no kernel runs on it: {failure}. Training falls back to the CPU."
    if torch.version.hip:
        lend = "HSA_OVERRIDE_GFX_VERSION may lend it the code of a similar card: 10.3.0 for RDNA 2, 11.0.0 for RDNA 3."
        return text, f"ROCm may not serve this card; it serves these: {ROCM_CARDS}. {lend}"
    if "no kernel image" in failure:
        name, card = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        code = f"this PyTorch ({torch.__version__}) has code for {', '.join(torch.cuda.get_arch_list())}"
        driver = next((c["driver_version"] for c in nvidia_smi()[0]), "")
        return f"{text} {name} has compute capability {card[0]}.{card[1]}; {code}.", install(driver, card)
    if re.search("out of memory|ALLOC_FAILED", failure):
        return f"GPU memory is full. {text}", OTHERS
    return text, f"Restart the machine or container; then update the driver and PyTorch: {PYTORCH}"
