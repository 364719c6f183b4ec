"""`python -m hico_cli` is `hico`."""

from hico_cli.main import main

main()
