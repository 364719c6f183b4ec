"""Evidence that pretraining learns: a synthetic corpus with known content, the arms that are compared on it, probes."""
