"""The command line: one thin module per group of verbs."""

from densekit.cli.app import main as main
