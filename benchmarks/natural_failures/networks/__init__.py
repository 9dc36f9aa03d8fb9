"""The networks that are trained: ours, neuraloperator's, and two as people write them by hand."""
