"""kvmlab: a virtualization laboratory for Python and Jupyter."""

from kvmlab.engine import version as _version

__version__ = _version()
__all__ = ["__version__"]
