"""Lets `python -m hico_cli` run `hico`."""

from hico_cli.main import main

if __name__ == "__main__":  # not in the processes that it starts
    main()
