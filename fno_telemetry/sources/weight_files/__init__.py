"""Files and folders with weights: one module per container that training programs write."""
