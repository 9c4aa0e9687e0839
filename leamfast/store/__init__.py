"""HDF5 parts, the index over them, reading and verifying."""
