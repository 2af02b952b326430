"""`python -m gemma_nli` is the command `gemma-nli`."""

from gemma_nli.cli import main

main()
