"""Rules about the input of the model, and about test samples."""
