"""``python -m controller``."""

from controller.cli import main

main(prog_name="artifact-repository-controller")
