"""Evaluation of features and encoders on labelled videos."""
