"""Triton kernels and what launches them, imported with Triton where a tensor on a GPU first needs one."""
