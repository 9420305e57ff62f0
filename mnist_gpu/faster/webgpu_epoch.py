"""An epoch on a GPU that PyTorch cannot use, through WebGPU: four kernels a step (mnist_gpu/webgpu/kernels)."""

from collections.abc import Sequence

import numpy
import torch

from mnist_gpu.data import DeviceBatches
from mnist_gpu.faster.whole_epoch import WholeEpoch
from mnist_gpu.faster.written_out import need_float32
from mnist_gpu.model import CLASSES, MLP, PIXELS
from mnist_gpu.webgpu.gpu import Call, Gpu

KERNELS = ("hidden", "output", "update_hidden", "update_rest")
MOST_WORKGROUPS = 65_535  # in one direction: a limit of WebGPU


class WebGPUEpoch(WholeEpoch):
    """SGD over a whole epoch, or the first `steps` of one, on `gpu`. See WholeEpoch.

    The images' bytes lie in the GPU's memory. At the beginning of a pass it gets the weights and momenta of `model` and
    `optimizer`, at the end it gives them back: a pass that fails leaves both as they were before.

    Args:
        gpu: to compute on.
        model, optimizer: the network on the CPU and its torch.optim.SGD.
        batches: on the CPU.
        submissions: "epoch" records all steps and submits them once, which is the CUDA graph of an epoch for any GPU;
            "step" submits each step for itself.

    Raises:
        ValueError: another network, optimizer, device or kind of submissions; a batch or width beyond the GPU's limit.
        WebGPUError: at a pass, the GPU failed.
    """

    def __init__(self, gpu: Gpu, model: MLP, optimizer: torch.optim.SGD, batches: DeviceBatches, submissions="epoch"):
        super().__init__(batches)
        if submissions not in ("epoch", "step"):
            raise ValueError(f"submissions is {submissions!r}, but must be 'epoch' or 'step'")
        if type(model) is not MLP:
            raise ValueError(f"the model is a {type(model).__name__}, but must be the course's MLP")
        need_float32(model)
        set_to = [k for k in ("dampening", "weight_decay", "nesterov", "maximize") if optimizer.param_groups[0].get(k)]
        if type(optimizer) is not torch.optim.SGD or set_to:
            raise ValueError(f"the optimizer is {optimizer}, but must be torch.optim.SGD with lr and momentum only")
        if batches.device.type != "cpu":
            raise ValueError(
                f"the batches are on {batches.device.type!r}, but must be on 'cpu', to be copied from there"
            )
        self.gpu, self.model, self.optimizer, self.submissions = gpu, model, optimizer, submissions
        size, width = min(self.order.batch_size, self.order.n), model.hidden.out_features
        if size > MOST_WORKGROUPS:
            raise ValueError(f"batch_size is {size}, but {gpu.name} takes at most {MOST_WORKGROUPS} images a step")
        self.width, self.arrays = width, {}

    def _prepare(self) -> None:
        """Everything that stays in the GPU's memory from pass to pass."""
        new, size, width = self.gpu.array, min(self.order.batch_size, self.order.n), self.width
        self.kernels = {name: self.gpu.kernel(name) for name in KERNELS}
        rest = width + CLASSES * width + CLASSES
        self.arrays = {
            "images": new(self.batches.images.numpy()), "labels": new(self.batches.labels.numpy().astype(numpy.uint32)),
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
        names = {
            "hidden": ("images order weights rest hidden", (tiles, rows)),
            "output": ("labels order rest hidden back back_logits image_losses", (size,)),
            "update_hidden": ("images order back weights weights_velocity", (PIXELS // 16, tiles)),
            "update_rest": (
                "hidden back back_logits image_losses rest rest_velocity losses",
                (-(-(11 * self.width + 11) // 64),),
            ),
        }
        return [
            Call(self.kernels[kernel], [a[name] for name in arrays.split()], workgroups, numbers)
            for kernel, (arrays, workgroups) in names.items()
        ]

    @torch.no_grad()
    def run(self, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
        if not self.arrays:
            self._prepare()
        a, parameters = self.arrays, list(self.model.parameters())
        momenta = [self.optimizer.state[p].get("momentum_buffer") for p in parameters]
        momenta = [torch.zeros_like(p) if m is None else m for p, m in zip(parameters, momenta, strict=True)]
        state = (parameters[:1], parameters[1:], momenta[:1], momenta[1:])
        arrays = [a[name] for name in ("weights", "rest", "weights_velocity", "rest_velocity")]
        for array, tensors in zip(arrays, state, strict=True):
            array.write(torch.cat([t.flatten() for t in tensors]).numpy())
        a["order"].write(torch.cat(drawn).numpy().astype(numpy.uint32))
        calls, start = [], 0
        for step, index in enumerate(drawn):
            calls += self.calls(step, start, len(index))
            start += len(index)
        self.gpu.run(calls, each=len(KERNELS) if self.submissions == "step" else 0)
        losses, *after = (torch.from_numpy(array.read()) for array in (a["losses"], *arrays))
        for values, tensors in zip(after, state, strict=True):
            parts = values.split([t.numel() for t in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))
        for p, m in zip(parameters, momenta, strict=True):
            self.optimizer.state[p]["momentum_buffer"] = m
        return losses[: len(drawn)]
