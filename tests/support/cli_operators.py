"""Batches for neuraloperator's models that take more than one tensor."""

import torch


def points():
    """Yield what GINO takes, by keyword only."""
    axis = torch.linspace(0, 1, 8)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)[None]
    generator = torch.Generator().manual_seed(0)
    x, geometry, queries = (torch.rand(1, n, k, generator=generator) for n, k in ((30, 1), (30, 2), (20, 2)))
    for _ in range(2):
        yield {"x": x, "input_geom": geometry, "latent_queries": grid, "output_queries": queries}


def functions():
    """Yield what CODANO takes: one channel for each of two variables."""
    yield torch.rand(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
