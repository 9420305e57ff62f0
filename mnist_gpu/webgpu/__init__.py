"""The GPU that PyTorch cannot use: WebGPU reaches nearly every laptop's, whoever made it, through the library wgpu."""
