"""Evidence that pretraining learns: a made corpus whose content is known, the arms that are compared on it, probes."""
