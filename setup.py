"""Packages of the distribution; everything else is in pyproject.toml.

configs/ lies beside rae_dit/ in a clone, and is the package rae_dit.configs in a wheel, which
pyproject.toml has no words for.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["rae_dit*"]), "rae_dit.configs"],
    package_dir={"rae_dit.configs": "configs"},
)
