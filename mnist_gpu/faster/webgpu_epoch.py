"""An epoch on a GPU that PyTorch cannot use, through WebGPU: four kernels a step (mnist_gpu/webgpu/kernels)."""

from collections.abc import Sequence

import numpy
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.model import CLASSES, MLP, PIXELS
from mnist_gpu.webgpu.gpu import Call, Gpu

MOST_WORKGROUPS = 65_535  # in one direction: a limit of WebGPU


class WebGPUEpoch(WholeEpoch):
    """SGD over a whole epoch, or the first `steps` of one, on `gpu`. See WholeEpoch.

    A pass takes the weights and momenta of `model`, on the CPU, and its `optimizer` along, and gives them back at the
    end: one that fails with WebGPUError leaves both as they were. `submissions`: "epoch" submits all steps at once,
    which is the CUDA graph of an epoch for any GPU; "step" each for itself. Raises ValueError for what it cannot train.
    """

    def __init__(self, gpu: Gpu, model: MLP, optimizer: torch.optim.SGD, batches: DeviceBatches, submissions="epoch"):
        super().__init__(batches)
        options, others = optimizer.param_groups[0], ("dampening", "weight_decay", "nesterov", "maximize")
        if type(optimizer) is not torch.optim.SGD or any(options[k] for k in others):
            raise ValueError(f"the optimizer is {optimizer}, but must be torch.optim.SGD with lr and momentum only")
        self.size = min(self.order.batch_size, self.order.n)
        if self.size > MOST_WORKGROUPS:
            raise ValueError(f"batch_size is {self.size}, but {gpu.name} takes at most {MOST_WORKGROUPS} images a step")
        self.gpu, self.model, self.optimizer, self.submissions = gpu, model, optimizer, submissions
        new, size, width = gpu.array, self.size, model.hidden.out_features
        self.width, rest = width, width + CLASSES * width + CLASSES
        self.arrays = {  # that stay in the GPU's memory from pass to pass
            "images": new(self.batches.images.cpu().numpy()),
            "labels": new(self.batches.labels.cpu().numpy().astype(numpy.uint32)),
            "order": new(numpy.zeros(self.order.n, numpy.uint32)), "losses": new(len(self)),
            "weights": new(width * PIXELS), "weights_velocity": new(width * PIXELS),
            "rest": new(rest), "rest_velocity": new(rest),
            "hidden": new(size * width), "back": new(size * width),
            "back_logits": new(size * CLASSES), "image_losses": new(size),
        }  # fmt: skip

    def calls(self, step: int, start: int, size: int) -> list[Call]:
        """The four kernels of one step, on the `size` images of the order from `start`."""
        a, options = self.arrays, self.optimizer.param_groups[0]
        numbers = start, size, self.width, step, float(options["lr"]), float(options["momentum"])
        tiles, rows = -(-self.width // 16), -(-size // 16)
        last = -(-(11 * self.width + 11) // 64)
        kernels = {
            "hidden": ("images order weights rest hidden", (tiles, rows)),
            "output": ("labels order rest hidden back back_logits image_losses", (size,)),
            "update_hidden": ("images order back weights weights_velocity", (PIXELS // 16, tiles)),
            "update_rest": ("hidden back back_logits image_losses rest rest_velocity losses", (last,)),
        }
        return [
            Call(self.gpu.kernel(kernel), [a[name] for name in arrays.split()], workgroups, numbers)
            for kernel, (arrays, workgroups) in kernels.items()
        ]

    @torch.no_grad()
    def run(self, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        a, parameters = self.arrays, list(self.model.parameters())
        momenta = [self.optimizer.state[p].get("momentum_buffer") for p in parameters]
        momenta = [torch.zeros_like(p) if m is None else m for p, m in zip(parameters, momenta, strict=True)]
        state = {
            "weights": parameters[:1], "rest": parameters[1:],
            "weights_velocity": momenta[:1], "rest_velocity": momenta[1:],
        }  # fmt: skip
        for name, tensors in state.items():
            a[name].write(parameters_to_vector(tensors).numpy())
        a["order"].write(torch.cat(drawn).cpu().numpy().astype(numpy.uint32))
        calls, start = [], 0
        for step, index in enumerate(drawn):
            calls += self.calls(step, start, len(index))
            start += len(index)
        self.gpu.run(calls, each=4 if self.submissions == "step" else 0)
        losses, *after = (torch.from_numpy(a[name].read()) for name in ("losses", *state))  # all, before any changes
        for values, tensors in zip(after, state.values(), strict=True):
            vector_to_parameters(values, tensors)
        for p, m in zip(parameters, momenta, strict=True):
            self.optimizer.state[p]["momentum_buffer"] = m
        return losses[: len(drawn)]
