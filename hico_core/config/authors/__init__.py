"""Translate the authors' YAML files into configurations of hico, and back."""
