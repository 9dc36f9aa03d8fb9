"""The TensorBoard sink: one run of curves, histograms and tables for each experiment."""
