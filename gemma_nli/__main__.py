"""`python -m gemma_nli` is the command `gemma-nli`."""

import sys
from pathlib import Path

if not sys.flags.safe_path and Path.cwd() != Path(__file__).parents[1]:
    sys.path.pop(0)  # the working folder, put there by -m: the command imports no `torch.py` that lies in it

from gemma_nli.cli import main

main()
