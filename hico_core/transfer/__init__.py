"""Uses of checkpoints: features, evaluation, finetuning and localisation."""
