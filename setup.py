"""Installs the library, its binaries as `xdistil-<verb>`, and its recipes as package data."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERBS = sorted(path.stem for path in (HERE / "bin").glob("[a-z]*.py"))


def requirements() -> list[str]:
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def version() -> str:
    text = (HERE / "xdistil_tf" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'__version__ = "(.+)"', text).group(1)


setuptools.setup(
    name="xdistil_tf",
    version=version(),
    description="Distillation of large pretrained transformers into small, fast students",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=[
        *setuptools.find_packages(include=["xdistil_tf", "xdistil_tf.*"]),
        "xdistil_tf.bin",
        "xdistil_tf.configs",
    ],
    package_dir={"xdistil_tf.bin": "bin", "xdistil_tf.configs": "configs"},
    package_data={"xdistil_tf.configs": ["*.yaml", "*/*.yaml"]},
    install_requires=requirements(),
    extras_require={
        "torch": ["torch"],
        "wikipedia": ["mwparserfromhell>=0.6.6"],
        "beam": ["apache-beam>=2.60"],
        "test": ["pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6"],
        "plot": ["matplotlib>=3.8"],
        "rules": ["textblob>=0.19"],
        "dev": ["ruff>=0.8", "pre-commit>=3.7"],
    },
    entry_points={
        "console_scripts": [
            f"xdistil-{verb.replace('_', '-')}=xdistil_tf.bin.{verb}:run"
            for verb in VERBS
            if not verb.endswith("_flags")
        ]
    },
)
