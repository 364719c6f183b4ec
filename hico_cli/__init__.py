"""The command line: each command parses, calls one function of hico_core, and prints."""
