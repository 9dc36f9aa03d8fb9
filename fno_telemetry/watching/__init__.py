"""A training loop watched while it runs: schedules, live forwards, gradients, and how far parameters move."""
