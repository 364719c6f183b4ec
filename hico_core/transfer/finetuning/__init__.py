"""Finetuning: a pretrained encoder learns the classes of labelled videos, and is tested on other videos."""
