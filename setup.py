"""Names the packages: those of mwanda/, and conf/ (with experiments/ in it), which is installed as mwanda/conf."""

from setuptools import find_namespace_packages, setup


setup(packages=[*find_namespace_packages(include=["mwanda*"]), "mwanda.conf"])
