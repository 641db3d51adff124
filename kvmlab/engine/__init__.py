"""The binding: the only file that touches ffi and lib."""

from kvmlab.engine._engine import ffi, lib


def version() -> str:
    """Return the version that the extension was built as."""
    return ffi.string(lib.kl_version()).decode()
