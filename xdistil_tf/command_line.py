"""What all binaries share: bad input ends in one line and an exit code, never in a traceback."""

from __future__ import annotations

import logging as stdlib_logging
import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from xdistil_tf import files, interruption

# The exit codes of docs/interfaces.md, section 1.
BAD_INPUT = 1
BAD_FLAGS = 2
DISK_FULL = 3
NOT_A_NUMBER = 4


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs an absl `main` and turns what it raises into one line and an exit code.

    With `--verbosity=1` the traceback is shown as well.
    """
    # What --help begins with; a console script has no text of its own.
    sys.modules["__main__"].__doc__ = sys.modules[main.__module__].__doc__
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_ours_or_serious(main))

    def guarded(arguments: Sequence[str]) -> int:
        if len(arguments) > 1:
            return _fail(f"Unexpected arguments {arguments[1:]}. Flags start with --.", BAD_INPUT)
        try:
            main(arguments)
            sys.stdout.flush()  # Not as Python exits, where a closed pipe ends in a traceback.
        except BrokenPipeError:  # Whoever reads standard output has enough, `| head` for example.
            # Python writes out standard output once more as it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except interruption.Interrupted as error:
            return _fail(f"{error} Run the same command to go on.", interruption.EXIT_CODE)
        except KeyboardInterrupt:
            return _fail(
                "Stopped at once. Run the same command to go on from the last checkpoint.",
                interruption.EXIT_CODE,
            )
        except files.DiskFullError as error:
            return _fail(str(error), DISK_FULL)
        except FloatingPointError as error:
            return _fail(str(error), NOT_A_NUMBER)
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            return _fail(_in_words(error), BAD_INPUT)
        return 0

    app.run(guarded, flags_parser=_parsed)


def _parsed(arguments: Sequence[str]) -> list[str]:
    _put_all_our_flags_into_help()
    try:
        return flags.FLAGS(arguments)
    except SystemExit:  # absl leaves with 1 after it has shown the help that was asked for.
        sys.exit(0)
    except flags.Error as error:
        sys.exit(_fail(f"{error} See --help.", BAD_FLAGS))


def _put_all_our_flags_into_help() -> None:
    """`--help` shows the flags of the main module, and by that none that binaries share."""
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module.startswith("xdistil_tf."):
            for flag in defined:
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def _ours_or_serious(main: Callable) -> Callable[[stdlib_logging.LogRecord], bool]:
    """Leaves out what libraries tell about themselves, also those below our own checkout."""
    package = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
    binary = os.path.abspath(main.__code__.co_filename)

    def shown(record: stdlib_logging.LogRecord) -> bool:
        path = os.path.abspath(record.pathname)
        ours = path == binary or path.startswith(package)
        return ours or record.levelno > stdlib_logging.WARNING

    return shown


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return (
            f"Cannot read or write {error.filename}: {error.strerror}. Expected a place that "
            "exists or can be made, with the rights to use it; check the flag that names it."
        )
    return str(error)


def _fail(message: str, code: int) -> int:
    if logging.level_debug():
        logging.exception("%s", message)
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code
