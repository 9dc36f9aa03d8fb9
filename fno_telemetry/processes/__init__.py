"""Measuring in several processes of `torch.distributed`: what each of them has becomes one record."""
