"""The simulated accelerator as a card that this PyTorch, a ROCm build, has no code for: a product ends the process.

On such cards it is SIGSEGV in hip::FatBinaryInfo::AddDevProgram, at the first launch of any kernel.
"""

import os
import signal

import simulated_accelerator
import torch

torch.version.hip = "6.2.41133"
_library = torch.library.Library("aten", "IMPL")
_library.impl("mm", lambda *tensors: os.kill(os.getpid(), signal.SIGSEGV), "PrivateUse1")
loaded = simulated_accelerator.loaded  # PyTorch's entry point, as in simulated_accelerator/autoload
