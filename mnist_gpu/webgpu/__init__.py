"""The GPU that PyTorch cannot use: WebGPU reaches nearly every laptop's, whoever made it, through the library wgpu.

gpu.py      what GPUs there are, and one of them to compute on: arrays, kernels, calls
child.py    the process that owns the driver
kernels/    the kernels, in WGSL, WebGPU's language
"""
