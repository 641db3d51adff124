"""The command line: ``kvmlab doctor``, ``kvmlab run GUEST``, ``kvmlab labs DIR``, …

Each command imports what it needs when it runs, so that ``kvmlab --help`` is quick and ``kvmlab doctor`` works where
the engine does not. Guests' output goes to stdout, everything that we say to stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .errors import Error

app = typer.Typer(
    help="A virtualization laboratory: run a guest, look at every exit, learn what the hypervisor does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
kernel_app = typer.Typer(help="The Jupyter kernel with kvmlab's magics preloaded.", no_args_is_help=True)
app.add_typer(kernel_app, name="kernel")


def say(*words: object) -> None:
    print(*words, file=sys.stderr)


@app.command()
def doctor() -> None:
    """Say which engine runs guests here, why, and how to get what is missing."""
    from .doctor import doctor as diagnose

    diagnosis = diagnose()
    print(diagnosis)
    if any(check.ok is False for check in diagnosis.checks):
        raise typer.Exit(1)


@app.command()
def run(
    guest: Annotated[Path, typer.Argument(help="Assembler text (.S), C (.c), an ELF executable or a flat image.")],
    engine: Annotated[str, typer.Option(help="auto, soft or kvm.")] = "auto",
    cpu: Annotated[str | None, typer.Option(help="intel-2006, amd-2006, intel or amd.")] = None,
    mmu: Annotated[str | None, typer.Option(help="shadow, vtlb or tdp.")] = None,
    memory: Annotated[str, typer.Option(help="Size, as 4M.")] = "16M",
    bits: Annotated[int | None, typer.Option(help="16, 32 or 64: the mode it starts in.")] = None,
    org: Annotated[str | None, typer.Option(help="Address of its first byte, as 0x7c00.")] = None,
    max_instructions: Annotated[int | None, typer.Option(help="Stop after as many.")] = None,
    bare: Annotated[bool, typer.Option("--bare", help="On the bare machine: no hypervisor under it.")] = False,
) -> None:
    """Run a guest to its end. Its console (ports 0x3f8 and 0xe9) is stdout; what else happened goes to stderr.

    Ctrl-C stops it and says where it was. The exit status is 0 if it ended with HLT.
    """
    from .guest_run import image_of, make_computer, run_and_tell

    image = image_of(guest, bits, None if org is None else _number(org))
    with make_computer(memory, engine, cpu, mmu, bare) as computer:
        raise typer.Exit(run_and_tell(computer, image, max_instructions))


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise Error(f"{text!r} is no number.", "Write 4096 or 0x1000.") from None


@app.command()
def labs(folder: Annotated[Path, typer.Argument(help="Where to; made if it does not exist.", metavar="DIR")]) -> None:
    """Copy the lab notebooks into DIR. Notebooks that are there are never overwritten."""
    from .install import copy_labs

    new, kept = copy_labs(folder)
    if not new and not kept:
        raise Error("This kvmlab was built without labs.", "Install a released kvmlab.")
    for name in new:
        print(f"new   {folder / name}")
    for name in kept:
        print(f"kept  {folder / name}")


@app.command()
def static(
    notebook: Annotated[Path, typer.Argument(help="A saved notebook.", metavar="NB.ipynb")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here instead of in place.")] = None,
) -> None:
    """Make a saved notebook show its widgets as tables where no script runs: GitHub, offline pages, PDF."""
    from .static import rewrite

    removed = rewrite(notebook, output)
    print(f"{output or notebook}: {removed} widget views replaced by their HTML")


@app.command()
def speed(
    guests: Annotated[list[str] | None, typer.Argument(help="Which guests; all, where none is named.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Each figure is the median of as many pairs of runs.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Measure how fast guests run and are stepped here, beside Unicorn in the same run where it is installed."""
    from .speed import measure_and_tell

    measure_and_tell(pairs, guests or [], json)


@kernel_app.command("install")
def kernel_install(
    user: Annotated[bool, typer.Option("--user", help="For this user, outside any environment.")] = False,
    prefix: Annotated[
        Path | None, typer.Option(help="Into this environment; the default is the one kvmlab is in.")
    ] = None,
) -> None:
    """Install the Jupyter kernel "kvmlab": Python with %load_ext kvmlab already done."""
    from .install import install_kernel

    print(install_kernel(user=True if user else None, prefix=prefix))


def version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        print(f"kvmlab {__version__}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print it and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point: errors of ours are two sentences on stderr, without a traceback."""
    try:
        app()
    except Error as error:
        say(f"kvmlab: {error}")
        sys.exit(1)
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain once more when it flushes at exit.
        sys.stdout = None
        sys.exit(0)


if __name__ == "__main__":
    main()
