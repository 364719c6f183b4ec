"""Evidence that pretraining learns: a synthetic corpus with known content, training arms to compare, and probes."""
