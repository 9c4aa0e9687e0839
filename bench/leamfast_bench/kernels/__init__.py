"""How fast the operations of leamfast_kernels are: beside plain PyTorch and what the device can do."""
