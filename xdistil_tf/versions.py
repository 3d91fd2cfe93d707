"""What a result was made with: versions and machine, written into every result folder."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

import xdistil_tf

PACKAGES = ("tensorflow", "tf-keras", "tensorflow-text", "transformers", "tokenizers", "numpy")
# What matrix products can use; the speed of bfloat16 hangs on the last two.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


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
        "instructions": " ".join(name for name in INSTRUCTIONS if name in _cpu("flags").split()),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
    }


def _processor() -> str:
    return _cpu("model name") or platform.processor()


def _cpu(field: str) -> str:
    """A field of the first processor, as Linux tells it; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            found = [line.split(":", 1)[1] for line in handle if line.startswith(field)]
    except OSError:
        found = []
    return found[0].strip() if found else ""
