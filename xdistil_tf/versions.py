"""What a result was made with: versions and machine, written into every result folder."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

import xdistil_tf

PACKAGES = ("tensorflow", "tf-keras", "tensorflow-text", "transformers", "tokenizers", "numpy")


def environment() -> dict[str, str | int]:
    """Versions of the library and what it stands on, system, processor and cores."""
    versions = {"xdistil_tf": xdistil_tf.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions | {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            names = [line.split(":", 1)[1].strip() for line in handle if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
