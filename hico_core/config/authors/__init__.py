"""The authors' YAML files as configurations of hico."""
