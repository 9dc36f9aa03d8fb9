"""The networks that can be built by name, one per module; each module names its `Architecture`."""
