"""Fixtures of all tests of the W&B sink."""

from support import wandb_surroundings

alone, server = wandb_surroundings.alone, wandb_surroundings.server
run_program = wandb_surroundings.run_program
