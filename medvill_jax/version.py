"""The version of the package: setup.py, results and `medvill --version` take it from here."""

VERSION = "0.1.0"
