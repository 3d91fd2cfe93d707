"""What the scripts of evidence share: they call the binaries of this checkout, as a user would."""

from __future__ import annotations

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "evidence"


def run(verb: str, *flags: str) -> None:
    """Runs a binary.

    Raises:
      RuntimeError: If it fails; it has said why.
    """
    command = [sys.executable, str(ROOT / "bin" / f"{verb}.py"), *flags]
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise RuntimeError(f"{verb} ended with {code}. Run the same command to go on.")


def run_study(definition: str, folder: pathlib.Path) -> None:
    """Makes evidence/<name>.json by a study's definition; its finished runs are taken over.

    Raises:
      RuntimeError: If it fails; it has said why.
    """
    finished = EVIDENCE / f"{pathlib.Path(definition).stem}.json"
    known = (f"--finished_runs={finished}",) if finished.is_file() else ()
    run("study", f"--study={definition}", f"--output_dir={folder}", f"--output_json={finished}",
        *known)  # fmt: skip
