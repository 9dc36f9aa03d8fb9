"""The commands, one a module: a request (made and checked in one place), a run, a showing."""
