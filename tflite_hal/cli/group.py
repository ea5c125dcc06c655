"""How every command ends: errors, warnings and interruptions are one line each, on stderr."""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import click

from tflite_hal.errors import TfliteHalError

__all__ = ["Group"]


class Group(click.Group):
    """Commands that end in one line and exit status 2 where something is wrong; ``--debug`` raises it.

    Every command takes ``--debug``, before its name or after.
    """

    _debug = False

    def __init__(self, *args: Any, **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.params.append(_debug_option())

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, with the options that all have; so get the commands of a group."""
        for one in (cmd, *(cmd.commands.values() if isinstance(cmd, click.Group) else ())):
            one.params.append(_debug_option())
        super().add_command(cmd, name)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command that the arguments name, and exit."""
        self._debug = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names of files and models may be any bytes
                stream.reconfigure(errors="backslashreplace")
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                status = super().main(*args, **{**extra, "standalone_mode": False})
        except click.UsageError as error:
            self._refuse(error)
        except click.ClickException as error:
            _end(error.format_message(), error.exit_code)
        except click.Abort:
            _end("interrupted", 130)  # as a shell tells SIGINT
        except TfliteHalError as error:
            if self._debug:
                raise
            _end(str(error))
        except OSError as error:
            if self._debug:
                raise
            _tell(error)
        sys.exit(status or 0)

    def _refuse(self, error: click.UsageError) -> NoReturn:
        """End because of the arguments; without any, with the help."""
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            error.show()
            sys.exit(2)
        path = self.name if error.ctx is None else error.ctx.command_path
        _end(f"{error.format_message()} (see {path} --help)")


def _debug_option() -> click.Option:
    def note(ctx: click.Context, _: click.Parameter, given: bool) -> None:
        group = ctx.find_root().command
        if given and isinstance(group, Group):
            group._debug = True

    text = "Show the traceback of an error."
    return click.Option(["--debug"], is_flag=True, expose_value=False, callback=note, help=text)


def _end(message: str, status: int = 2) -> NoReturn:
    click.echo(f"tflite-hal: {' '.join(message.split())}", err=True)
    sys.exit(status)


def _tell(error: OSError) -> NoReturn:
    """End because of the system: a full disk behind the output, or anything that nobody caught."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    writer = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    if writer.split(".")[0] not in ("click", "rich"):  # all output goes through these two
        _end(f"{error} (tflite-hal --debug shows where)")
    # What is left in the buffer would be tried, and fail, once more when Python ends.
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - open until then
    _end(f"the output can't be written: {error.strerror}")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"tflite-hal: warning: {' '.join(str(message).split())}", err=True)
