"""The binding: the only file that touches ffi and lib."""

from kvmlab.engine._engine import ffi, lib

__version__: str = ffi.string(lib.kl_version()).decode()
