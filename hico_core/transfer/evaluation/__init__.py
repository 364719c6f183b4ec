"""What features and encoders are worth on labelled videos."""
